"""The shipped predictions: tiers fit their cards, and lines for a card's owner."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import pytest

from sdi_gs.configs.presets import preset_named
from sdi_gs.runs.predicted_memory import Case, predicted, predicted_of_check, tier_lines
from sdi_gs.settings.compute import ComputeConfig
from sdi_gs.settings.tiers import TIERS, Tier

GIB = 2**30
CARDS = ("RTX 4090", "A6000", "A100", "H100")


@pytest.mark.parametrize("tier", [pytest.param(tier, id=tier.name) for tier in TIERS])
@pytest.mark.parametrize("image_size", [512, 768])
def test_every_tier_is_predicted_to_fit_its_card(tier: Tier, image_size: int) -> None:
    row = predicted(tier, image_size)
    assert row is not None, "run benchmarks/memory_prediction.py --docs docs/reports/gpu-memory.md"
    assert (row["peak_bytes"] <= tier.budget_bytes) == (image_size <= tier.largest_pixels)


@pytest.mark.parametrize("image_size", [512, 768])
@pytest.mark.parametrize("case", ["gaussians", "pixels", "published"])
def test_no_tier_is_slower_than_a_larger_one_without_needing_less(case: Case, image_size: int) -> None:
    rows = [predicted(tier, 512 if case == "published" else image_size, case) for tier in TIERS]
    for larger, smaller in itertools.pairwise(rows):
        assert smaller["peak_bytes"] <= larger["peak_bytes"]
        if smaller["peak_bytes"] > 0.995 * larger["peak_bytes"]:
            assert all(smaller["seconds"][card] <= 1.005 * larger["seconds"][card] for card in CARDS)


@pytest.mark.parametrize("tier", [pytest.param(tier, id=tier.name) for tier in TIERS])
@pytest.mark.parametrize("case", ["preset", "published", "pixels"])
def test_every_tier_is_predicted_to_fit_its_card_with_a_field_and_in_pixels(tier: Tier, case: Case) -> None:
    row = predicted(tier, 512, case)
    assert row is not None, "run benchmarks/memory_prediction.py --docs docs/reports/gpu-memory.md"
    assert row["peak_bytes"] <= tier.budget_bytes


@pytest.mark.parametrize("tier", [pytest.param(tier, id=tier.name) for tier in TIERS])
def test_every_tier_fits_its_card_under_four_views(tier: Tier) -> None:
    for case in ("gaussians", "mvdream"):
        row = predicted(tier, 256, case)
        assert row is not None, "run benchmarks/memory_prediction.py --docs docs/reports/gpu-memory.md"
        assert row["peak_bytes"] <= tier.budget_bytes


@pytest.mark.parametrize("tier", [pytest.param(tier, id=tier.name) for tier in TIERS])
@pytest.mark.parametrize("image_size", [512, 768])
def test_pixels_take_less_memory_and_replayed_steps_little_time(tier: Tier, image_size: int) -> None:
    in_latents, in_pixels = predicted(tier, image_size), predicted(tier, image_size, "pixels")
    assert in_pixels["peak_bytes"] < in_latents["peak_bytes"]
    for card in CARDS:
        assert in_pixels["replayed_seconds"][card] < 0.1 * in_pixels["seconds"][card]


def test_an_owner_of_a_card_is_told_tier_memory_and_time() -> None:
    head, *lines = tier_lines(11 * GIB, "NVIDIA GeForce RTX 4090")
    assert head == "tiers       what --tier auto takes, of 11.0 GiB of free memory:"
    tiers = [re.search(r": tier (\d+) \(", line) for line in lines]
    # At 768 pixels more has to be saved, without the VAE's backward pass less, and for one view of a field least, or
    # for four of 256 pixels.
    assert [found and found[1] for found in tiers] == ["16", "12", "24", "40", "40"]
    assert [line.count(" s ") for line in lines] == [1, 1, 2, 1, 1]
    assert lines[2].endswith(" s on kept targets")
    unknown = tier_lines(11 * GIB, "NVIDIA GeForce RTX 3060")
    assert [line.count(" s on ") for line in unknown[1:]] == [4, 4, 8, 4, 4]
    small = tier_lines(6 * GIB, "NVIDIA GeForce RTX 3050")
    assert [line.endswith("no tier fits into 6.0 GiB of free memory") for line in small[1:]][1] is True
    assert all("no tier fits" in line for line in tier_lines(7 * GIB // 2, "NVIDIA GeForce RTX 3050")[1:])


def test_the_doctors_step_has_a_prediction_on_every_tier() -> None:
    config = preset_named("sd21-base").config
    needs = [predicted_of_check(replace(config, compute=tier.compute)) for tier in TIERS]
    assert all(need is not None and GIB < need <= tier.budget_bytes for need, tier in zip(needs, TIERS, strict=True))
    assert needs == sorted(needs, key=lambda need: need or 0, reverse=True)


def test_other_settings_than_those_that_were_counted_have_no_prediction() -> None:
    config = replace(preset_named("sd21-base").config, compute=TIERS[0].compute)
    assert predicted_of_check(replace(config, views_per_step=2)) is None
    assert predicted_of_check(replace(config, losses=replace(config.losses, space="pixels"))) is None
    assert predicted_of_check(replace(config, gaussians=replace(config.gaussians, num_initial=10))) is None
    assert predicted_of_check(replace(config, compute=ComputeConfig(views_at_once=3))) is None
