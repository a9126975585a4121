"""Parity with the published SDI code in float64, on a random U-Net with recorded answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from sdi_gs.guidance.config import GuidanceConfig
from sdi_gs.guidance.noise import invert_ddim
from sdi_gs.guidance.schedule import inversion_grid, sigma
from sdi_gs.guidance.score_distillation import GuidedPredictor, StepPlan, distil

if TYPE_CHECKING:
    from conftest import GoldenCase

PARITY: dict[str, Any] = {"atol": 1e-10, "rtol": 0.0}
PLAN = StepPlan(timestep=500, overshoot=50, source="inversion")


def test_the_inverted_latent_is_the_published_one(golden: GoldenCase) -> None:
    tensors, schedule = golden.tensors, golden.prior.schedule
    predictor = GuidedPredictor(golden.prior, tensors["cond"], tensors["uncond"])
    grid = inversion_grid(500, 50, num_steps=10, schedule=schedule)
    inverted = invert_ddim(
        lambda noised, timestep: predictor(noised, timestep, -7.5),
        tensors["z"],
        grid,
        schedule=schedule,
        eta=0.0,
        generator=torch.Generator(),
    )
    torch.testing.assert_close(inverted, tensors["x_T"], **PARITY)


def test_noise_and_target_are_the_published_ones(golden: GoldenCase) -> None:
    tensors = golden.tensors
    output = distil(
        GuidanceConfig(inversion_eta=0.0),
        golden.prior,
        tensors["z"],
        tensors["cond"],
        tensors["uncond"],
        plan=PLAN,
        generator=torch.Generator(),
    )
    torch.testing.assert_close(output.noise, tensors["kappa"], **PARITY)
    torch.testing.assert_close(output.target, tensors["target_paper"], **PARITY)
    # The record's last entry but one belongs to the published form of the target.
    assert golden.told == golden.settings["unet_timesteps"][:-1] == [-99, 1, 101, 201, 301, 401, 500]
    assert output.predictor_calls == 7


def test_the_distance_to_the_target_is_that_of_the_noises_in_units_of_sigma(golden: GoldenCase) -> None:
    tensors = golden.tensors
    for source in ("inversion", "random"):
        output = distil(
            GuidanceConfig(),
            golden.prior,
            tensors["z"],
            tensors["cond"],
            tensors["uncond"],
            plan=StepPlan(timestep=500, overshoot=20, source=source),
            generator=torch.Generator().manual_seed(0),
        )
        expected = sigma(golden.prior.schedule, 500) * (output.predicted_noise - output.noise)
        torch.testing.assert_close(tensors["z"] - output.target, expected, **PARITY)


def test_a_batch_is_guided_as_its_members_are(golden: GoldenCase) -> None:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(3, 4, 8, 8, generator=generator, dtype=torch.float64)
    conditional, unconditional = torch.randn(2, 3, 5, 16, generator=generator, dtype=torch.float64)

    def guide(rows: slice) -> torch.Tensor:
        output = distil(
            GuidanceConfig(inversion_eta=0.0),
            golden.prior,
            latents[rows],
            conditional[rows],
            unconditional[rows],
            plan=PLAN,
            generator=torch.Generator(),
        )
        return torch.stack([output.target, output.noise])

    together = guide(slice(None))
    apart = torch.cat([guide(slice(index, index + 1)) for index in range(3)], dim=1)
    torch.testing.assert_close(together, apart, **PARITY)
    assert (together[:, 0] - together[:, 1]).abs().mean() > 0.1


@pytest.mark.parametrize("scale", [7.5, 1.0, 0.0])
def test_the_prior_sees_no_gradient(golden: GoldenCase, scale: float) -> None:
    latents = golden.tensors["z"].clone().requires_grad_()
    output = distil(
        GuidanceConfig(guidance_scale=scale),
        golden.prior,
        latents,
        golden.tensors["cond"],
        golden.tensors["uncond"],
        plan=PLAN,
        generator=torch.Generator(),
    )
    assert not any(value.requires_grad for value in (output.target, output.noise, output.predicted_noise))
