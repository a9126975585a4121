"""Inversion against the closed forms of a Gaussian data distribution."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sdi_gs.guidance.inversion import invert_ddim
from sdi_gs.guidance.noise import noise_between, random_noise
from sdi_gs.guidance.schedule import add_noise, inversion_grid, sigma
from sdi_gs.priors.noise_schedules import scaled_linear_schedule

SCHEDULE = scaled_linear_schedule()
MEAN, STD = 1.3, 0.7
POINTS = torch.tensor([-0.5, 0.2, 2.0, 3.1], dtype=torch.float64)


def gaussian_noise(noised: Tensor, timestep: int) -> Tensor:
    """The exact noise prediction for data N(MEAN, STD^2)."""
    spread = sigma(SCHEDULE, timestep)
    scaled = noised / math.sqrt(SCHEDULE.alpha_cumprod(timestep))
    return spread * (scaled - MEAN) / (STD**2 + spread**2)


def invert(timestep: int, num_steps: int) -> Tensor:
    return invert_ddim(
        gaussian_noise,
        POINTS,
        inversion_grid(timestep, 0, num_steps=num_steps, schedule=SCHEDULE),
        schedule=SCHEDULE,
        eta=0.0,
        generator=torch.Generator(),
    )


def exactly_inverted(timestep: int) -> Tensor:
    """The solution of the probability flow, the clean latent standing at the level of timestep 0."""
    start, end = sigma(SCHEDULE, 0), sigma(SCHEDULE, timestep)
    growth = math.sqrt((STD**2 + end**2) / (STD**2 + start**2))
    scaled = POINTS / math.sqrt(SCHEDULE.alpha_cumprod(0))
    return math.sqrt(SCHEDULE.alpha_cumprod(timestep)) * (MEAN + (scaled - MEAN) * growth)


@pytest.mark.parametrize(
    ("num_steps", "error"), [(10, 0.351), (20, 0.187), (50, 0.0797), (100, 0.0410), (200, 0.0210), (1000, 0.0045)]
)
def test_inversion_errs_as_eulers_method_does(num_steps: int, error: float) -> None:
    worst = (invert(600, num_steps) - exactly_inverted(600)).abs().max().item()
    assert worst == pytest.approx(error, rel=0.01)


def test_inversion_is_of_first_order() -> None:
    errors = [(invert(600, n) - exactly_inverted(600)).abs().max().item() for n in (100, 200, 500)]
    slopes = [math.log(errors[0] / errors[1]) / math.log(2.0), math.log(errors[1] / errors[2]) / math.log(2.5)]
    assert slopes == pytest.approx([1.0, 1.0], abs=0.05)


@pytest.mark.parametrize(("timestep", "ratio"), [(50, 0.5), (980, 0.058)])
def test_inverted_noise_is_that_of_the_trajectory_and_not_of_one_step(timestep: int, ratio: float) -> None:
    """kappa_inv / kappa* for s = 0.8: half at little noise, next to nothing at much."""
    std, point = 0.8, torch.tensor([2.0], dtype=torch.float64)

    def predict(noised: Tensor, at: int) -> Tensor:
        spread = sigma(SCHEDULE, at)
        return spread * noised / math.sqrt(SCHEDULE.alpha_cumprod(at)) / (std**2 + spread**2)

    grid = inversion_grid(timestep, 0, num_steps=1000, schedule=SCHEDULE)
    inverted = invert_ddim(predict, point, grid, schedule=SCHEDULE, eta=0.0, generator=torch.Generator())
    kappa = noise_between(inverted, point, SCHEDULE.alpha_cumprod(timestep))
    spread = sigma(SCHEDULE, timestep)
    fixed_point = spread * point / std**2
    trajectory = point * (math.sqrt(1.0 + spread**2 / std**2) - 1.0) / spread
    assert (kappa / fixed_point).item() == pytest.approx(ratio, abs=0.06 * ratio + 0.01)
    assert (kappa / trajectory).item() == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize(("timestep", "variance"), [(980, 0.088), (750, 0.082), (500, 0.061), (250, 0.041)])
def test_eta_gives_the_noise_the_published_variance(timestep: int, variance: float) -> None:
    """Where the prior says nothing; the figures are those of the published code with overshoot 50."""
    latents = torch.zeros(1, 1, 500, 500, dtype=torch.float64)
    grid = inversion_grid(timestep, 50, num_steps=10, schedule=SCHEDULE)
    inverted = invert_ddim(
        lambda noised, _: torch.zeros_like(noised),
        latents,
        grid,
        schedule=SCHEDULE,
        eta=0.3,
        generator=torch.Generator().manual_seed(0),
    )
    kappa = noise_between(inverted, latents, SCHEDULE.alpha_cumprod(grid[-1]))
    assert kappa.var().item() == pytest.approx(variance, rel=0.02)


def test_the_predictor_is_asked_at_the_source_of_every_step() -> None:
    asked = []

    def predict(noised: Tensor, timestep: int) -> Tensor:
        asked.append(timestep)
        return noised

    invert_ddim(predict, POINTS, [-99, 1, 101, 134], schedule=SCHEDULE, eta=0.0, generator=torch.Generator())
    assert asked == [-99, 1, 101]


def test_without_eta_nothing_is_drawn() -> None:
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    options: dict[str, Any] = {"schedule": SCHEDULE, "generator": generator}
    invert_ddim(gaussian_noise, POINTS, [-99, 1, 134], eta=0.0, **options)
    assert torch.equal(before, generator.get_state())
    invert_ddim(gaussian_noise, POINTS, [-99, 1, 134], eta=0.3, **options)
    assert not torch.equal(before, generator.get_state())


def test_the_noise_between_two_latents_is_what_was_added() -> None:
    latents, noise = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for level in (0.99, 0.5, 0.005):
        recovered = noise_between(add_noise(latents, noise, level), latents, level)
        torch.testing.assert_close(recovered, noise, atol=1e-12, rtol=0.0)


def test_random_noise_is_standard_normal_and_the_generators() -> None:
    latents = torch.zeros(2, 4, 64, 64, dtype=torch.float64)
    noise, again, other = (random_noise(latents, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert noise.shape == latents.shape
    assert noise.dtype == torch.float64
    assert torch.equal(noise, again)
    # 32768 draws: the errors of mean and variance are 0.006 and 0.008.
    assert noise.mean().item() == pytest.approx(0.0, abs=0.03)
    assert noise.var().item() == pytest.approx(1.0, abs=0.04)
    assert abs((noise * other).mean().item()) < 0.03
