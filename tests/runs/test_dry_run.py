"""``sdi-gs train --dry-run``: what a run would be, and nothing of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from command_line import refusal
from torch.utils.flop_counter import FlopCounterMode

from sdi_gs.commands.main import main
from sdi_gs.configs.presets import preset
from sdi_gs.priors.check import _same_cost
from sdi_gs.priors.published import older_config, published_config, published_networks
from sdi_gs.runs.predicted_memory import Case, predicted
from sdi_gs.runs.predicted_run import COUNTED_VIEWS, pixels_factor, predicted_runs, step_seconds
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tiers import TierName, tier_named
from sdi_gs.settings.tree import config_from_dict

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


@pytest.fixture
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["sdi-paper-ngp", "sdi-paper-3dgs"])
def test_a_papers_run_is_printed_as_settings_and_leaves_nothing(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--preset", name, "--prompt", "a corgi", "--seed", "3", "--dry-run", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert config_from_dict(yaml.safe_load(printed)) == preset(name, prompt="a corgi", seed=3)
    assert "# predicted tier 24: at most" in printed
    assert "# prior     sd21-base: " in printed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--preset", "smoke"], "the prompt is empty"),
        (["--preset", "smoke", "--prompt", "x", "--resume", "r"], "--dry-run shows a new run"),
        (["--preset", "smoke", "--prompt", "x", "--two-stage"], "leave --two-stage out"),
        (["--preset", "smoke", "--prompt", "x", "--output-dir", "."], "exists"),
        (["--preset", "smoke", "--prompt", "x", "--prior", "nix"], "prior 'nix' is unknown"),
        (["--preset", "smoke", "--prompt", "x", "--init-from", "nix.ply"], "nix.ply"),
    ],
)
def test_what_no_run_could_begin_with_is_refused_in_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refusal(["train", *arguments, "--dry-run", "--device", "cpu"], capsys)


def seconds(config: RunConfig, tier: TierName = "40") -> dict[str, float]:
    found = step_seconds(config, tier_named(tier))
    assert found is not None
    return found


@pytest.mark.parametrize("name", ["40", "24", "8"])
def test_the_counted_run_takes_what_was_counted(name: TierName) -> None:
    config = preset("sd21-base", prompt="x")
    run = next(run for run in predicted_runs(config) if run.tier == tier_named(name))
    row = predicted(tier_named(name), 512)
    assert run.peak_bytes == row["peak_bytes"]
    expected = {card: 5000 * value / 3600.0 for card, value in row["seconds"].items()}
    assert run.hours == pytest.approx(expected, rel=0.005)


def test_a_round_in_pixels_takes_what_was_counted() -> None:
    rounds = {"losses.space": "pixels", "replay.steps_per_target": 4, "replay.views": 40}
    row = predicted(tier_named("40"), 512, "pixels")
    means = {card: (row["seconds"][card] + 3 * row["replayed_seconds"][card]) / 4 for card in row["seconds"]}
    assert seconds(preset("sd21-base", rounds, prompt="x")) == pytest.approx(means, rel=0.005)


def test_other_runs_take_what_the_report_counts_for_them() -> None:
    # Seconds on an RTX 4090 in docs/reports/gpu-memory.md: 1.88 with Perp-Neg on four views, 1.09 without, 0.55 on two.
    config = preset("sd21-base", prompt="x")
    assert seconds(config)["RTX 4090"] == pytest.approx(1.88, rel=0.01)
    without = replace(config, guidance=replace(config.guidance, perp_neg=False))
    assert seconds(without)["RTX 4090"] == pytest.approx(1.09, rel=0.02)
    assert seconds(replace(without, views_per_step=2))["RTX 4090"] == pytest.approx(0.55, rel=0.02)
    # Counted calls: 7.4 of two rows and one of four instead of 8.4 of four.
    last = replace(config, guidance=replace(config.guidance, perp_neg_calls="last"))
    networks, rest = 1.58, 0.30
    assert seconds(last)["RTX 4090"] == pytest.approx(networks * (7.4 * 2 + 4) / (8.4 * 4) + rest, rel=0.02)


def test_the_host_bounds_small_calls() -> None:
    # On an H100 a call on one view of two branches takes the card less time than its launches.
    small = preset("sd21-base", {"guidance.perp_neg": False}, prompt="x", views_per_step=1)
    host = predicted(tier_named("40"), 512)["parts_seconds"]["H100"]["host"]
    assert seconds(small)["H100"] > 8.3 * host


def test_the_fast_preset_takes_minutes_where_the_other_takes_hours() -> None:
    fast, base = (preset(name, prompt="x") for name in ("sd21-fast", "sd21-base"))
    minutes = {card: 5000 * value / 60.0 for card, value in seconds(fast).items()}
    assert minutes["RTX 4090"] <= 20.0
    assert minutes["A6000"] <= 25.0
    assert all(seconds(fast)[card] < seconds(base)[card] / 5.0 for card in minutes)


def of_networks_alone(name: str) -> RunConfig:
    """The preset's guidance with Gaussians."""
    return preset(name, {"representation": "gaussians"}, prompt="x")


def test_small_renders_save_a_fields_time_in_proportion_to_their_pixels() -> None:
    assert pixels_factor(preset("sdi-paper-ngp"), 512) == 1.0
    assert pixels_factor(preset("sd21-ngp"), 512) == pytest.approx(0.3 / 16 + 0.5 / 4 + 0.2)
    full, grown = (
        next(run for run in predicted_runs(preset(name, prompt="x")) if run.tier.name == "24")
        for name in ("sdi-paper-ngp", "sd21-ngp")
    )
    # The networks take the same time in both: that of one view of Gaussians' four, without their render.
    gaussians = predicted(full.tier, 512, "gaussians")
    assert gaussians is not None
    for card, value in seconds(of_networks_alone("sd21-ngp"), "24").items():
        networks = 10_000 * (value - gaussians["parts_seconds"][card]["rest"] / COUNTED_VIEWS) / 3600.0
        share = (grown.hours[card] - networks) / (full.hours[card] - networks)
        assert share == pytest.approx(0.3 / 16 + 0.5 / 4 + 0.2, rel=1e-3)


def unet_operations(config: dict[str, Any]) -> int:
    """Floating-point operations of one prediction at 512 pixels, by torch's formulas."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        unet: Any = UNet2DConditionModel(**config)
        unet(torch.empty(1, 4, 64, 64), 500, torch.empty(1, 77, config["cross_attention_dim"]))
    return counter.get_total_flops()


def test_a_run_of_1_5_takes_what_one_of_2_1_base_takes() -> None:
    older, base = (predicted_runs(preset(name, prompt="x")) for name in ("sd15", "sd21-base"))
    assert older == base != []
    operations = [unet_operations(config) for config in (older_config("unet"), published_config("unet_512"))]
    # The U-Net's cost in docs/reports/sd21.md, where a multiply-add is two.
    assert operations[1] == pytest.approx(0.804e12, rel=0.01)
    assert operations[0] == pytest.approx(operations[1], rel=0.01)


def test_nothing_is_said_of_runs_that_were_not_counted() -> None:
    assert predicted_runs(preset("toybox-ideal", prompt="a blue robot")) == []
    assert predicted_runs(preset("sd21-base", prompt="x", views_per_step=5)) == []
    assert predicted_runs(preset("mvdream", prompt="x", views_per_step=8)) == []
    assert predicted_runs(preset("mvdream-sdi", {"losses.space": "pixels"}, prompt="x")) == []
    assert predicted_runs(preset("sdi-paper-ngp", {"ngp.samples_per_ray": 256}, prompt="x")) == []


@pytest.mark.parametrize(("name", "case"), [("mvdream-sdi", "gaussians"), ("mvdream", "mvdream")])
@pytest.mark.parametrize("tier", ["40", "8"])
def test_runs_of_four_views_take_what_was_counted(name: str, case: Case, tier: TierName) -> None:
    # The published run renders 64 pixels in its first half.
    config = preset(name, {"render.sizes": (), "render.milestones": ()}, prompt="x")
    run = next(run for run in predicted_runs(config) if run.tier == tier_named(tier))
    row = predicted(tier_named(tier), 256, case)
    assert run.peak_bytes == row["peak_bytes"]
    hours = {card: config.steps * value / 3600.0 for card, value in row["seconds"].items()}
    assert run.hours == pytest.approx(hours, rel=0.02)


def test_a_call_holds_the_whole_group_however_few_views_go_at_once() -> None:
    # On the smallest tier single views take turns in rendering and in the VAE, not in the prior.
    parts = [predicted(tier_named(name), 256)["parts_seconds"]["A100"] for name in ("40", "8")]
    assert parts[0]["call"] == pytest.approx(parts[1]["call"], rel=1e-6)
    assert parts[0]["host"] == pytest.approx(parts[1]["host"], rel=1e-6)
    assert parts[0]["vae"] < parts[1]["vae"]
    # Two rows for each view, and in self-attention four times the tokens: more than half of the four rows of 512
    # pixels, which are four times as large, would be.
    larger = predicted(tier_named("40"), 512)["parts_seconds"]["A100"]["call"]
    assert 1.0 / 8.0 < parts[0]["call"] / larger < 0.25


def test_a_model_of_mvdreams_size_has_its_predictions() -> None:
    unet = published_networks("mvdream", device="meta", dtype=torch.float16).unet
    # Of 2.1-base, and the two layers for 16 numbers of a camera.
    weights = 865_910_724 + (16 * 1280 + 1280) + (1280 * 1280 + 1280)
    assert sum(weight.numel() for weight in unet.parameters()) == weights
    assert [_same_cost(unet, *shape) for shape in ((256, 4), (512, 4), (256, 1))] == ["mvdream", None, None]
    own, named = (replace(preset("mvdream-sdi", prompt="x"), prior=prior) for prior in ("folder", "mvdream"))
    assert predicted_runs(own) == []
    assert predicted_runs(own, same_cost="mvdream") == predicted_runs(named) != []
