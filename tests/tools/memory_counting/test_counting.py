"""A whole step of the real trainer on tensors without data: what it holds, and what each lever takes off it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from memory_counting.cards import CARDS
from memory_counting.counting import META, StepCount, count_round, count_step, published_prior
from memory_counting.prediction import from_count, mean_calls

from sdi_gs.configs.presets import preset_named
from sdi_gs.doctor.miniature import SMALLEST, miniature_networks, prior_of_networks
from sdi_gs.guidance.score_distillation import predictor_calls
from sdi_gs.guidance.step_plan import StepPlan
from sdi_gs.priors.noise_schedules import scaled_linear_schedule
from sdi_gs.runs.predicted_memory import predicted, predicted_of_check
from sdi_gs.settings.compute import ComputeConfig
from sdi_gs.settings.losses import LossSpace
from sdi_gs.settings.replay import ReplayConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tiers import TIERS, Tier

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


def config(**changes: Any) -> RunConfig:
    base = preset_named("sd21-base").config
    gaussians = replace(base.gaussians, num_initial=2000)
    return replace(base, gaussians=gaussians, densify=replace(base.densify, enabled=False), **changes)


def count(settings: RunConfig) -> StepCount:
    return count_step(settings, prior_of_networks(miniature_networks(SMALLEST, device=META), model="sd21-base"))


def test_a_step_is_counted_part_by_part() -> None:
    counted = count(config())
    networks = miniature_networks(SMALLEST, device=META)
    held = [*networks.unet.parameters(), *networks.vae.parameters()]
    assert counted.peak["weights"] == sum(4 * weight.numel() for weight in held)
    assert {"scene", "vae", "text", "optimiser"} <= set(counted.peak)
    # Two moments for each of 14 numbers of each Gaussian.
    assert counted.peak["optimiser"] == 2 * 4 * 14 * 2000
    assert counted.peak_bytes <= counted.reserved
    assert counted.flops("unet") > 0
    assert counted.flops("vae") > 0


def rounds(space: LossSpace, views: int, **changes: Any) -> tuple[StepCount, StepCount]:
    settings = config(replay=ReplayConfig(steps_per_target=4, views=views), **changes)
    settings = replace(settings, losses=replace(settings.losses, space=space))
    return count_round(settings, prior_of_networks(miniature_networks(SMALLEST, device=META), model="sd21-base"))


def test_a_round_in_pixels_has_no_network_in_its_further_steps() -> None:
    first, later = rounds("pixels", 8)
    assert first.predictor_calls > 0
    assert later.predictor_calls == 0
    assert first.flops("vae") > 0
    assert later.flops("vae") == later.flops("unet") == 0
    assert later.peak_bytes < first.peak_bytes < rounds("latents", 8)[0].peak_bytes


def test_a_round_in_latents_encodes_in_every_step() -> None:
    first, later = rounds("latents", 8)
    # Forward and backward, and no decoding.
    assert later.flops("vae") == first.flops("vae") == count(config()).flops("vae")
    assert later.flops("unet") == 0


@pytest.mark.parametrize("space", ["latents", "pixels"])
def test_kept_targets_are_counted(space: LossSpace) -> None:
    few, many = (rounds(space, views)[0].held for views in (8, 40))
    networks = miniature_networks(SMALLEST, device=META)
    channels, size = networks.vae.config.latent_channels, networks.unet.config.sample_size
    pictures = 3 * SMALLEST.image_size**2 if space == "pixels" else 0
    cameras = 16 + 9 + 2 + 3  # Pose, intrinsics, angles, and the background.
    assert many - few == 32 * 4 * (channels * size**2 + pictures + cameras)


def test_decoding_in_groups_lowers_the_peak() -> None:
    whole, in_turn = (rounds("pixels", 8, compute=ComputeConfig(views_at_once=count))[0] for count in (0, 1))
    assert in_turn.peak_bytes < whole.peak_bytes
    assert in_turn.flops("vae") == whole.flops("vae")


def test_a_round_needs_replay() -> None:
    with pytest.raises(ValueError, match="use count_step"):
        count_round(config(), prior_of_networks(miniature_networks(SMALLEST, device=META), model="sd21-base"))


@pytest.mark.slow
def test_every_lever_of_memory_lowers_the_count() -> None:
    whole = count(config())
    in_turn = count(config(compute=ComputeConfig(views_at_once=1)))
    checkpointed = count(config(compute=ComputeConfig(vae="checkpoint")))
    assert in_turn.peak["vae"] < 0.5 * whole.peak["vae"]
    assert in_turn.peak_bytes < whole.peak_bytes
    assert checkpointed.peak_bytes < whole.peak_bytes
    # Encoding once more is what the memory costs.
    assert in_turn.flops("vae") > 1.2 * whole.flops("vae")
    assert in_turn.flops("unet") == whole.flops("unet")
    freed = count(config(compute=ComputeConfig(free_text_encoder=True)))
    assert "text" not in freed.peak or freed.peak["text"] < 0.1 * whole.peak["text"]


@pytest.mark.slow
def test_more_gaussians_need_more_and_move_alike() -> None:
    few, many = (count(replace(config(), gaussians=replace(config().gaussians, num_initial=n))) for n in (2000, 20_000))
    assert many.peak["optimiser"] == 10 * few.peak["optimiser"]
    assert many.peak["scene"] > few.peak["scene"]


def test_a_prediction_scales_the_calls_to_the_runs_mean() -> None:
    settings = config(steps=10_000, guidance=replace(config().guidance, t_min=0.25))
    # 86 250 calls in a published run of 10 000 steps.
    assert mean_calls(settings) == pytest.approx(8.625, abs=0.01)
    plans = [StepPlan(timestep=timestep) for timestep in (980, 500, 250)]
    calls_at = [predictor_calls(settings.guidance, plan, scaled_linear_schedule()) for plan in plans]
    assert calls_at == [12, 7, 5]
    counted = count(settings)
    prediction = from_count(counted, settings)
    calls = prediction.predictor_calls / counted.predictor_calls
    assert prediction.flops > calls * counted.flops("unet") + counted.flops("vae")
    assert set(prediction.seconds) == {card.name for card in CARDS}
    assert all(seconds > 0.0 for seconds in prediction.seconds.values())


def test_four_views_are_one_call_however_few_go_at_once() -> None:
    networks = miniature_networks(replace(SMALLEST, four_views=True), device=META)
    prior = prior_of_networks(networks, model="mvdream")
    base = preset_named("mvdream-sdi").config
    small = replace(
        base, gaussians=replace(base.gaussians, num_initial=2000), densify=replace(base.densify, enabled=False)
    )
    whole, in_turn = (
        count_step(replace(small, compute=ComputeConfig(views_at_once=at_once)), prior) for at_once in (0, 1)
    )
    assert in_turn.flops("unet") == whole.flops("unet")
    assert in_turn.predictor_calls == whole.predictor_calls
    kernels = [sum(operation.part == "unet" for operation in one.operations) for one in (whole, in_turn)]
    assert kernels[0] == kernels[1] > 0
    assert in_turn.peak_bytes < whole.peak_bytes
    # Self-attention over four times the tokens: more work than the same rows view by view.
    alone = prior_of_networks(miniature_networks(SMALLEST, device=META), model="sd21-base")
    single = replace(small, prior="sd21-base", cameras=replace(small.cameras, views_per_group=1))
    single = replace(single, guidance=replace(small.guidance, views="words"))
    assert whole.flops("unet") > 1.02 * count_step(single, alone).flops("unet")


@pytest.mark.slow
@pytest.mark.parametrize(("tier", "image_size"), [(TIERS[0], 512), (TIERS[-1], 768)])
def test_the_predictions_that_come_with_the_package_are_those_of_this_code(tier: Tier, image_size: int) -> None:
    settings = config(compute=tier.compute)
    settings = replace(settings, gaussians=replace(settings.gaussians, num_initial=200_000))
    prior = published_prior("sd21-base", image_size=image_size, dtype=torch.float16)
    anew = from_count(count_step(settings, prior), settings)
    # Other versions of the libraries may hold a little more or less.
    row = predicted(tier, image_size)
    assert row is not None
    assert anew.peak_bytes == pytest.approx(row["peak_bytes"], rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("tier", [pytest.param(tier, id=tier.name) for tier in TIERS[:2]])
def test_the_predictions_for_the_doctors_check_are_those_of_this_code(tier: Tier) -> None:
    settings = preset_named("sd21-base").config
    settings = replace(settings, prompt="a chair", compute=tier.compute)
    anew = count_step(settings, published_prior("sd21-base", image_size=None, dtype=torch.float16))
    assert anew.peak_bytes == pytest.approx(predicted_of_check(settings), rel=0.05)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux' high-water mark of memory")
@pytest.mark.parametrize("case", ["vae-128", "toy-four-views"])
def test_a_measured_step_is_within_a_tenth_of_the_count(case: str, tmp_path: Path) -> None:
    script = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); import memory_prediction as m; "
        f"print(json.dumps(m.validate(['{case}'])))"
    )
    # The benchmark's own process finds its neighbours in the folder of its script.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    command = [sys.executable, "-c", script, str(BENCHMARKS)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    (row,) = json.loads(done.stdout.splitlines()[-1])
    assert row["counted"] == pytest.approx(row["measured"], rel=0.10)
