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
from sdi_gs.priors.published import older_config, published_config
from sdi_gs.runs.predicted_memory import predicted
from sdi_gs.runs.predicted_run import networks_factor, pixels_factor, predicted_runs
from sdi_gs.settings.tiers import tier_named
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


def test_the_counted_run_takes_what_was_counted() -> None:
    config = preset("sd21-base", prompt="x")
    assert networks_factor(config) == pytest.approx(1.0)
    run = next(run for run in predicted_runs(config) if run.tier == tier_named("24"))
    row = predicted(tier_named("24"), 512)
    assert run.peak_bytes == row["peak_bytes"]
    assert run.hours == pytest.approx({card: 5000 * seconds / 3600.0 for card, seconds in row["seconds"].items()})


def test_other_runs_take_what_the_report_counts_for_them() -> None:
    # Seconds on an RTX 4090 in docs/reports/gpu-memory.md: 2.06 with Perp-Neg on four views, 1.11 without, 0.56 on two.
    config = preset("sd21-base", prompt="x")
    without = replace(config, guidance=replace(config.guidance, perp_neg=False))
    assert networks_factor(without) == pytest.approx(1.11 / 2.06, rel=0.03)
    assert networks_factor(replace(without, views_per_step=2)) == pytest.approx(0.56 / 2.06, rel=0.03)
    # Counted calls: 7.4 of two rows and one of four instead of 8.4 of four.
    last = replace(config, guidance=replace(config.guidance, perp_neg_calls="last"))
    assert networks_factor(last) == pytest.approx(0.08 + 0.92 * (7.4 * 2 + 4) / (8.4 * 4), rel=0.02)


def test_small_renders_save_a_fields_time_in_proportion_to_their_pixels() -> None:
    assert pixels_factor(preset("sdi-paper-ngp"), 512) == 1.0
    assert pixels_factor(preset("sd21-ngp"), 512) == pytest.approx(0.3 / 16 + 0.5 / 4 + 0.2)
    full, grown = (
        next(run for run in predicted_runs(preset(name, prompt="x")) if run.tier.name == "24")
        for name in ("sdi-paper-ngp", "sd21-ngp")
    )
    assert all(grown.hours[card] < 0.6 * hours for card, hours in full.hours.items())


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
    assert predicted_runs(preset("sd21-base", {"losses.space": "pixels"}, prompt="x")) == []
    assert predicted_runs(preset("sdi-paper-ngp", {"ngp.samples_per_ray": 256}, prompt="x")) == []
