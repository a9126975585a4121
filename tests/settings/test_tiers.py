"""Which tier a card gets, what each saves, and what is said about it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from sdi_gs.configs.presets import preset
from sdi_gs.errors import UserError
from sdi_gs.runs.console_observer import line_of
from sdi_gs.runs.events import Event, TierChosen
from sdi_gs.runs.memory_tier import VisibleCard, chosen_tier, other_cards_line, tier_of_run
from sdi_gs.settings.compute import ComputeConfig
from sdi_gs.settings.tiers import TIERS, next_lower, saving_at_least, tier_for, tier_named, under_tier

GIB = 2**30


@pytest.mark.parametrize(
    ("free", "name"),
    [(79.0, "40"), (34.0, "40"), (33.9, "24"), (23.5, "24"), (15.7, "16"), (11.5, "12"), (7.6, "8"), (6.7, None)],
)
def test_free_memory_picks_the_largest_tier_that_fits(free: float, name: str | None) -> None:
    tier = tier_for(int(free * GIB))
    assert (tier.name if tier is not None else None) == name


def test_each_tier_saves_what_the_larger_ones_save_and_more() -> None:
    for larger, smaller in itertools.pairwise(TIERS):
        assert saving_at_least(smaller.compute, larger.compute) == smaller.compute
        assert saving_at_least(larger.compute, smaller.compute) == smaller.compute != larger.compute


def test_stepping_down_goes_through_the_tiers_to_the_end() -> None:
    compute, names = ComputeConfig(), list[str]()
    while (lower := next_lower(compute, views=4, branches=4, rays=4 * 512**2)) is not None:
        tier, compute = lower
        names.append(tier.name)
    assert names == ["40", "24", "16", "12", "8"]
    assert compute == tier_named("8").compute


def test_what_saves_nothing_in_this_run_is_passed_over() -> None:
    # One view and two branches: the first tier that helps moves the text encoder out.
    lower = next_lower(ComputeConfig(), views=1, branches=2)
    assert lower is not None
    assert lower[0].name == "16"
    assert lower[1] == ComputeConfig(free_text_encoder=True)


def test_rays_are_a_saving_for_fields_alone() -> None:
    # All that tier 24 has but its rays: for Gaussians the next thing that helps is the text encoder's place.
    compute = replace(tier_named("24").compute, rays_at_once=0)
    gaussians, field = (next_lower(compute, views=4, branches=4, rays=rays) for rays in (0, 4 * 512**2))
    assert gaussians is not None
    assert field is not None
    assert (gaussians[0].name, gaussians[1].rays_at_once) == ("16", 0)
    assert (field[0].name, field[1].rays_at_once) == ("40", 2**18)


def test_what_the_user_chose_besides_memory_stays() -> None:
    chosen = ComputeConfig(precision="bfloat16", channels_last=True, views_at_once=1)
    lower = next_lower(chosen, views=4, branches=4)
    assert lower is not None
    # Views one by one are so in the VAE as well.
    assert lower[1] == replace(chosen, free_text_encoder=True, vae_views_at_once=1)


def test_the_card_decides_unless_a_tier_is_named() -> None:
    events = list[Event]()
    config = preset("toybox", prompt="a mug")
    tier = chosen_tier("auto", config, free_bytes=11 * GIB, emit=events.append)
    assert tier is tier_named("12")
    assert chosen_tier("8", config, free_bytes=80 * GIB, emit=events.append) is tier_named("8")
    assert chosen_tier("8", config, free_bytes=1 * GIB, emit=events.append) is tier_named("8")
    assert chosen_tier("none", config, free_bytes=11 * GIB, emit=events.append) is None
    named = TierChosen(tier=tier_named("8"), free_bytes=None)
    assert events == [TierChosen(tier=tier_named("12"), free_bytes=11 * GIB), named, named]
    assert [line_of(event) for event in events[:2] if isinstance(event, TierChosen)] == [
        "tier 12 for 11.0 GiB of free memory: " + tier_named("12").summary + "; --tier chooses another",
        "tier 8 as asked: " + tier_named("8").summary,
    ]


@pytest.mark.parametrize(
    ("name", "changes", "free", "tier"),
    [
        # At its own size all views fit a card of 24 GB, and a 16 GB card takes them in pairs in the VAE alone.
        ("sd21-base", {}, 22.0, "40"),
        ("sd21-base", {}, 15.0, "24"),
        ("sd21-base", {}, 7.5, "16"),
        ("sd21-base", {}, 6.2, "12"),
        ("sd21", {}, 22.0, "24"),
        ("sd21", {}, 39.0, "40"),
        # Without a backward pass through the VAE.
        ("sd21-base", {"losses.space": "pixels"}, 15.0, "40"),
        # Of a field its own need decides, of a prior that was not counted the tier's name.
        ("sdi-paper-ngp", {}, 24.0, "40"),
        ("sdi-paper-ngp", {}, 15.0, "40"),
        ("sdi-paper-ngp", {}, 10.0, "16"),
        ("sdi-paper-ngp", {}, 8.4, "12"),
        ("sd15", {}, 22.0, "40"),
        ("mvdream-sdi", {}, 22.0, "40"),
        ("mvdream-sdi", {}, 6.0, "24"),
        ("mvdream-sdi", {}, 4.1, "12"),
        # Under its own field the lowest tier needs least.
        ("mvdream", {}, 4.45, "8"),
        ("toybox", {}, 22.0, "24"),
    ],
)
def test_the_fastest_way_that_fits_is_taken_by_the_runs_own_need(
    name: str, changes: dict[str, object], free: float, tier: str
) -> None:
    config = preset(name, changes, prompt="a corgi")
    assert chosen_tier("auto", config, free_bytes=int(free * GIB)) is tier_named(tier)  # pyright: ignore[reportArgumentType]


def test_a_tier_leaves_what_is_faster_and_needs_no_more_memory() -> None:
    chosen = ComputeConfig(vae_precision="float16", channels_last=True, compile_unet=True, attention="plain")
    under = under_tier(chosen, tier_named("8").compute)
    expected = replace(tier_named("8").compute, vae_precision="float16", channels_last=True, compile_unet=True)
    assert under == expected


def test_without_a_card_only_a_named_tier_counts() -> None:
    cpu, config = torch.device("cpu"), preset("sd21-base", prompt="a mug")
    assert tier_of_run("auto", config, device=cpu) is None
    assert tier_of_run("16", config, device=cpu) is tier_named("16")
    ideal = preset("toybox-ideal", prompt="a mug")
    assert tier_of_run("auto", ideal, device=torch.device("cuda")) is None


def test_a_card_too_small_for_every_tier_is_one_line() -> None:
    with pytest.raises(UserError, match=r"the card has 5\.5 GiB of free memory .* --tier 8 all the same") as refused:
        chosen_tier("auto", preset("sd15", prompt="a mug"), free_bytes=int(5.5 * GIB))
    assert "\n" not in str(refused.value)


def test_cards_of_different_sizes_are_one_line_and_of_one_size_none() -> None:
    small = VisibleCard(index=0, name="RTX 3060", total_bytes=12 * GIB)
    large = VisibleCard(index=1, name="RTX 4090", total_bytes=24 * GIB)
    assert other_cards_line([small, large], used=0) == (
        "using cuda:0, RTX 3060 (12 GiB); also there: RTX 4090 (24 GiB) as cuda:1; choose with --device, "
        "or hide cards with CUDA_VISIBLE_DEVICES"
    )
    assert other_cards_line([large, replace(large, index=2)], used=1) is None
