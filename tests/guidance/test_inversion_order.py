"""Second-order inversion: against closed forms, against first order; and the grid even in sigma."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sdi_gs.guidance.inversion import DATA_STD, inversion_timesteps, invert_ddim, sigma_grid
from sdi_gs.guidance.noise import noise_between
from sdi_gs.guidance.noise_sources.inversion import Inversion
from sdi_gs.guidance.schedule import inversion_grid, sigma
from sdi_gs.guidance.step_plan import StepPlan
from sdi_gs.priors.noise_schedules import scaled_linear_schedule
from sdi_gs.settings.guidance import GuidanceConfig, InversionOrder, InversionSpacing

SCHEDULE = scaled_linear_schedule()
SPACINGS: dict[InversionOrder, InversionSpacing] = {1: "timesteps", 2: "sigma"}
MEAN, STD = 1.3, 0.7
POINTS = torch.tensor([-0.5, 0.2, 2.0, 3.1], dtype=torch.float64)
TIMESTEP = 700


def gaussian_noise(noised: Tensor, timestep: int) -> Tensor:
    """The exact noise prediction for data N(MEAN, STD^2)."""
    spread = sigma(SCHEDULE, timestep)
    scaled = noised / math.sqrt(SCHEDULE.alpha_cumprod(timestep))
    return spread * (scaled - MEAN) / (STD**2 + spread**2)


def inferred(num_steps: int, order: InversionOrder, timestep: int = TIMESTEP, **options: Any) -> Tensor:
    """kappa of the points."""
    grid = inversion_timesteps(timestep, 0, num_steps=num_steps, schedule=SCHEDULE, spacing=SPACINGS[order])
    arguments: dict[str, Any] = {"eta": 0.0, "generator": torch.Generator(), **options}
    inverted = invert_ddim(gaussian_noise, POINTS, grid, schedule=SCHEDULE, order=order, **arguments)
    return noise_between(inverted, POINTS, SCHEDULE.alpha_cumprod(timestep))


def exact_noise(timestep: int = TIMESTEP, std: float = STD) -> Tensor:
    """The solution of the probability flow from sigma = 0."""
    spread = sigma(SCHEDULE, timestep)
    return (POINTS - MEAN) * (math.sqrt(1.0 + spread**2 / std**2) - 1.0) / spread


def error(num_steps: int, order: InversionOrder, timestep: int = TIMESTEP) -> float:
    return (inferred(num_steps, order, timestep) - exact_noise(timestep)).abs().max().item()


def test_the_error_falls_with_the_square_of_the_number_of_calls() -> None:
    calls = [len(sigma_grid(TIMESTEP, 0, num_steps=n, schedule=SCHEDULE)) - 1 for n in (20, 40, 80)]
    errors = [error(n, 2) for n in (20, 40, 80)]
    slopes = [math.log(errors[k] / errors[k + 1]) / math.log(calls[k + 1] / calls[k]) for k in range(len(calls) - 1)]
    assert slopes == pytest.approx([2.0, 2.0], abs=0.3)


@pytest.mark.parametrize("timestep", [250, 400, 550, 700, 850, 980])
def test_half_the_calls_of_first_order_are_enough(timestep: int) -> None:
    assert error(5, 2, timestep) < 0.3 * error(10, 1, timestep)


@pytest.mark.parametrize("grid", [[300, 700], [20, 60, 400, 980], [100, 101, 900]])
def test_it_is_exact_for_a_gaussian_of_its_own_width(grid: list[int]) -> None:
    """However few and wherever the calls are."""

    def predict(noised: Tensor, timestep: int) -> Tensor:
        spread = sigma(SCHEDULE, timestep)
        scaled = noised / math.sqrt(SCHEDULE.alpha_cumprod(timestep))
        return spread * (scaled - MEAN) / (DATA_STD**2 + spread**2)

    inverted = invert_ddim(predict, POINTS, grid, schedule=SCHEDULE, eta=0.0, generator=torch.Generator(), order=2)
    kappa = noise_between(inverted, POINTS, SCHEDULE.alpha_cumprod(grid[-1]))
    torch.testing.assert_close(kappa, exact_noise(grid[-1], std=DATA_STD), atol=1e-10, rtol=0.0)


def test_the_predictor_is_asked_once_at_every_entry_but_the_last() -> None:
    asked = []

    def predict(noised: Tensor, timestep: int) -> Tensor:
        asked.append(timestep)
        return noised

    invert_ddim(predict, POINTS, [30, 200, 500], schedule=SCHEDULE, eta=0.0, generator=torch.Generator(), order=2)
    assert asked == [30, 200]


@pytest.mark.parametrize("timestep", [1, 2, 20, 101, 250, 500, 700, 980, 999])
@pytest.mark.parametrize("num_steps", [1, 2, 5, 10, 50])
def test_the_grid_rises_to_where_first_order_ends_with_no_more_calls(timestep: int, num_steps: int) -> None:
    first = inversion_grid(timestep, 33, num_steps=num_steps, schedule=SCHEDULE)
    second = sigma_grid(timestep, 33, num_steps=num_steps, schedule=SCHEDULE)
    assert second[-1] == first[-1]
    assert 2 <= len(second) <= len(first)
    assert all(source < destination for source, destination in zip(second[:-1], second[1:], strict=True))
    assert timestep < 101 or num_steps > 10 or len(second) == len(first)


def test_even_the_lowest_level_has_a_grid() -> None:
    assert sigma_grid(0, 0, num_steps=10, schedule=SCHEDULE) == [0, 0]
    assert inferred(10, 2, timestep=0).isfinite().all()


def test_a_grid_is_even_in_timesteps_or_in_sigma() -> None:
    options: dict[str, Any] = {"num_steps": 5, "schedule": SCHEDULE}
    assert inversion_timesteps(700, 20, spacing="timesteps", **options) == [-199, 1, 201, 401, 601, 720]
    grid = inversion_timesteps(700, 20, spacing="sigma", data_std=0.3, **options)
    positions = [math.asinh(sigma(SCHEDULE, timestep) / 0.3) for timestep in grid]
    # Timesteps are whole numbers.
    assert positions == pytest.approx([(k + 1) * positions[-1] / len(grid) for k in range(len(grid))], rel=0.02)


@pytest.mark.parametrize(
    ("given", "order", "spacing"),
    [(None, 1, "timesteps"), (None, 2, "sigma"), ("sigma", 1, "sigma"), ("timesteps", 2, "timesteps")],
)
def test_each_order_has_its_own_spacing_unless_one_is_set(
    given: InversionSpacing | None, order: InversionOrder, spacing: InversionSpacing
) -> None:
    config = GuidanceConfig(inversion_order=order, inversion_spacing=given)
    assert config.resolved_inversion_spacing == spacing
    grid = Inversion().grid(StepPlan(timestep=700, overshoot=20), config, SCHEDULE)
    options: dict[str, Any] = {"num_steps": config.inversion_steps, "data_std": config.inversion_data_std}
    assert grid == inversion_timesteps(700, 20, schedule=SCHEDULE, spacing=spacing, **options)


def test_first_order_is_the_default_and_unchanged() -> None:
    """Euler's step, term by term."""
    grid = [-99, 1, 101, 134]
    noised = POINTS
    for source, destination in zip(grid[:-1], grid[1:], strict=True):
        level, to = SCHEDULE.alpha_cumprod(source), SCHEDULE.alpha_cumprod(destination)
        noise = gaussian_noise(noised, source)
        clean = (noised - math.sqrt(1.0 - level) * noise) / math.sqrt(level)
        noised = math.sqrt(to) * clean + math.sqrt(1.0 - to) * noise
    inverted = invert_ddim(gaussian_noise, POINTS, grid, schedule=SCHEDULE, eta=0.0, generator=torch.Generator())
    assert torch.equal(inverted, noised)


@pytest.mark.parametrize("timestep", [250, 500, 750, 980])
def test_eta_spreads_kappa_about_as_first_order_does(timestep: int) -> None:
    """On a prior that answers to the noise: data N(0, 0.5^2)."""
    points = torch.zeros(200_000, dtype=torch.float64)

    def predict(noised: Tensor, at: int) -> Tensor:
        spread = sigma(SCHEDULE, at)
        return spread * noised / math.sqrt(SCHEDULE.alpha_cumprod(at)) / (0.25 + spread**2)

    def variance(num_steps: int, order: InversionOrder) -> float:
        grid = inversion_timesteps(timestep, 0, num_steps=num_steps, schedule=SCHEDULE, spacing=SPACINGS[order])
        generator = torch.Generator().manual_seed(0)
        inverted = invert_ddim(predict, points, grid, schedule=SCHEDULE, eta=0.3, generator=generator, order=order)
        return noise_between(inverted, points, SCHEDULE.alpha_cumprod(timestep)).var().item()

    assert 0.5 < variance(5, 2) / variance(10, 1) < 2.0


def test_without_eta_nothing_is_drawn() -> None:
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    inferred(5, 2, generator=generator)
    assert torch.equal(before, generator.get_state())
    inferred(5, 2, generator=generator, eta=0.3)
    assert not torch.equal(before, generator.get_state())
