"""Timesteps, grids and DDIM's algebra against diffusers and the published values."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddim_inverse import DDIMInverseScheduler
from torch import Tensor

from sdi_gs.contracts import NoiseSchedule, PredictionType
from sdi_gs.guidance.inversion import invert_ddim
from sdi_gs.guidance.schedule import (
    add_noise,
    annealed_timestep,
    ddim_variance,
    inversion_grid,
    predicted_clean,
    sigma,
)
from sdi_gs.priors.latent_diffusion import noise_from_prediction
from sdi_gs.priors.noise_schedules import scaled_linear_schedule
from sdi_gs.priors.schedulers import read_scheduler
from sdi_gs.settings.guidance import Annealing

SD21_PNDM: dict[str, Any] = {
    "_class_name": "PNDMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
EXACTLY: dict[str, Any] = {"atol": 1e-11, "rtol": 1e-11}


def diffusers_scheduler(scheduler_class: Any, prediction_type: str = "epsilon") -> Any:
    """A scheduler from SD 2.1's config that reckons in float64 with diffusers' float32 constants."""
    scheduler = scheduler_class.from_config(SD21_PNDM | {"prediction_type": prediction_type})
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    for clean in ("initial_alpha_cumprod", "final_alpha_cumprod"):
        if hasattr(scheduler, clean):
            setattr(scheduler, clean, getattr(scheduler, clean).double())
    scheduler.set_timesteps(10)
    return scheduler


def sd_schedule() -> NoiseSchedule:
    return read_scheduler(SD21_PNDM)[0]


def two_latents() -> tuple[Tensor, Tensor]:
    first, second = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return first, second


def timestep_at(step: int, annealing: Annealing = "linear", seed: int = 0, t_max: float = 0.98) -> int:
    return annealed_timestep(
        step,
        10_000,
        t_max=t_max,
        t_min=0.25,
        annealing=annealing,
        num_timesteps=1000,
        generator=torch.Generator().manual_seed(seed),
    )


def test_levels_and_sigmas_are_those_of_stable_diffusion() -> None:
    schedule = scaled_linear_schedule()
    published = {0: 0.029, 20: 0.138, 200: 0.572, 250: 0.696, 500: 1.618, 750: 4.099, 980: 13.04, 999: 14.61}
    for timestep, value in published.items():
        assert sigma(schedule, timestep) == pytest.approx(value, rel=1e-3, abs=5e-4)
    assert sigma(schedule, -99) == sigma(schedule, 0)
    torch.testing.assert_close(
        schedule.alphas_cumprod, diffusers_scheduler(DDIMScheduler).alphas_cumprod, atol=1e-6, rtol=1e-6
    )


@pytest.mark.parametrize(("step", "timestep"), [(0, 980), (1, 979), (5000, 615), (9999, 250)])
def test_linear_annealing_visits_the_published_timesteps(step: int, timestep: int) -> None:
    assert timestep_at(step) == timestep


def test_square_root_annealing_has_the_same_ends_and_is_lower_between() -> None:
    assert (timestep_at(0, "sqrt"), timestep_at(9999, "sqrt")) == (980, 250)
    assert timestep_at(2500, "sqrt") == 615
    assert all(timestep_at(step, "sqrt") < timestep_at(step) for step in range(100, 9900, 100))


def test_uniform_timesteps_fill_their_range_whatever_the_step() -> None:
    drawn = [timestep_at(step, "uniform", seed=step) for step in range(2000)]
    assert min(drawn) in range(250, 255)
    assert max(drawn) in range(975, 981)
    # The standard error of the mean is 4.7.
    assert sum(drawn) / len(drawn) == pytest.approx(615.0, abs=20.0)


def scheduled(value: tuple[float, float, float, float], step: int) -> float:
    """threestudio's ``C``: [first step, first value, last value, last step]."""
    begin, first, last, end = value
    return first + (last - first) * max(min(1.0, (step - begin) / (end - begin)), 0.0)


def widened(step: int, seed: int = 0) -> int:
    """MVDream's published range, of 10 000 steps."""
    return annealed_timestep(
        step,
        10_000,
        t_max=0.98,
        t_min=0.02,
        annealing="widening",
        num_timesteps=1000,
        generator=torch.Generator().manual_seed(seed),
        t_max_final=0.5,
        annealing_end=0.8,
    )


@pytest.mark.parametrize("step", [0, 1, 1000, 5000, 8000, 9999])
def test_a_widening_range_is_mvdreams(step: int) -> None:
    low, high = (int(1000 * scheduled((0, 0.98, end, 8000), step)) for end in (0.02, 0.5))
    drawn = [widened(step, seed) for seed in range(3000)]
    assert (min(drawn) >= low, max(drawn) <= high) == (True, True)
    # With 3000 draws of at most 481 values, the chance that an end is missing is one in 500.
    assert max(drawn) - high >= -2 and min(drawn) - low <= 2
    spread = (high - low) / math.sqrt(12.0 * 3000.0)
    assert sum(drawn) / len(drawn) == pytest.approx((low + high) / 2.0, abs=5.0 * spread + 1e-9)


@pytest.mark.parametrize(("annealing", "middle"), [("linear", 615), ("sqrt", 463)])
def test_annealing_can_end_before_the_run(annealing: Annealing, middle: int) -> None:
    def at(step: int) -> int:
        return annealed_timestep(
            step,
            100,
            t_max=0.98,
            t_min=0.25,
            annealing=annealing,
            num_timesteps=1000,
            generator=torch.Generator(),
            annealing_end=0.5,
        )

    assert [at(step) for step in (0, 25, 50, 75, 99)] == [980, middle, 250, 250, 250]


def test_no_timestep_lies_beyond_the_last() -> None:
    assert timestep_at(0, t_max=1.0) == 999


@pytest.mark.parametrize(
    ("timestep", "overshoot", "grid"),
    [
        (980, 10, [-99, 1, 101, 201, 301, 401, 501, 601, 701, 801, 901, 990]),
        (980, 50, [-99, 1, 101, 201, 301, 401, 501, 601, 701, 801, 901, 999]),
        (500, 50, [-99, 1, 101, 201, 301, 401, 550]),
        (250, 0, [-99, 1, 101, 201, 250]),
        (101, 33, [-99, 1, 134]),
        (102, 0, [-99, 1, 101, 102]),
        (20, 7, [-99, 1, 27]),
    ],
)
def test_the_inversion_visits_the_published_grid(timestep: int, overshoot: int, grid: list[int]) -> None:
    assert inversion_grid(timestep, overshoot, num_steps=10, schedule=scaled_linear_schedule()) == grid


@pytest.mark.parametrize(("num_steps", "start", "calls"), [(1, -999, 2), (3, -332, 3), (20, -49, 11), (1000, 0, 500)])
def test_the_stride_of_the_grid_follows_the_number_of_steps(num_steps: int, start: int, calls: int) -> None:
    grid = inversion_grid(500, 0, num_steps=num_steps, schedule=scaled_linear_schedule())
    assert (grid[0], grid[-1], len(grid) - 1) == (start, 500, calls)
    assert grid == sorted(set(grid))


def test_a_default_run_makes_the_published_number_of_inversion_calls() -> None:
    schedule = scaled_linear_schedule()
    calls = [len(inversion_grid(timestep_at(step), 0, num_steps=10, schedule=schedule)) - 1 for step in range(10_000)]
    assert (calls[0], calls[-1], sum(calls)) == (11, 4, 76_250)


def test_the_grid_is_diffusers_own_with_the_offset_of_a_pndm_config() -> None:
    inverse = diffusers_scheduler(DDIMInverseScheduler)
    grid = inversion_grid(999, 0, num_steps=10, schedule=sd_schedule())
    assert inverse.timesteps.tolist() == grid[1:-1]


@pytest.mark.parametrize("num_steps", [3, 7, 10, 30])
def test_a_trailing_grid_is_diffusers_own_too(num_steps: int) -> None:
    inverse: Any = DDIMInverseScheduler.from_config(SD21_PNDM | {"timestep_spacing": "trailing"})
    inverse.set_timesteps(num_steps)
    schedule = replace(sd_schedule(), timestep_spacing="trailing")
    grid = inversion_grid(999, 0, num_steps=num_steps, schedule=schedule)
    assert grid[1:] == inverse.timesteps.tolist()
    assert grid[0] == grid[1] - 1000 // num_steps


def test_a_trailing_grid_starts_as_published() -> None:
    schedule = replace(sd_schedule(), timestep_spacing="trailing")
    assert inversion_grid(250, 40, num_steps=10, schedule=schedule) == [-1, 99, 199, 290]


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("destination", [1, 101, 501, 901])
def test_an_inversion_step_is_that_of_diffusers(prediction_type: PredictionType, destination: int) -> None:
    inverse, schedule = diffusers_scheduler(DDIMInverseScheduler, prediction_type), sd_schedule()
    noised, predicted = two_latents()
    ours = invert_ddim(
        lambda latents, timestep: noise_from_prediction(
            predicted, latents, schedule, timestep, prediction_type=prediction_type
        ),
        noised,
        [destination - 100, destination],
        schedule=schedule,
        eta=0.0,
        generator=torch.Generator(),
    )
    theirs = inverse.step(predicted, torch.tensor(destination), noised).prev_sample
    torch.testing.assert_close(ours, theirs, **EXACTLY)


@pytest.mark.parametrize("timestep", [0, 20, 250, 615, 999])
def test_noising_and_its_reverse_are_those_of_diffusers(timestep: int) -> None:
    scheduler, level = diffusers_scheduler(DDIMScheduler), sd_schedule().alpha_cumprod(timestep)
    latents, noise = two_latents()
    noised = add_noise(latents, noise, level)
    torch.testing.assert_close(noised, scheduler.add_noise(latents, noise, torch.tensor(timestep)), **EXACTLY)
    guess = noise.flip(0)
    theirs = scheduler.step(guess, timestep, noised).pred_original_sample
    torch.testing.assert_close(predicted_clean(noised, guess, level), theirs, **EXACTLY)
    torch.testing.assert_close(predicted_clean(noised, noise, level), latents, **EXACTLY)


@pytest.mark.parametrize(("source", "destination"), [(-99, 1), (1, 101), (401, 550), (901, 999)])
def test_the_variance_of_a_step_is_that_of_diffusers(source: int, destination: int) -> None:
    scheduler, schedule = diffusers_scheduler(DDIMScheduler), sd_schedule()
    ours = ddim_variance(schedule.alpha_cumprod(source), schedule.alpha_cumprod(destination))
    assert ours == pytest.approx(float(scheduler._get_variance(destination, source)), rel=1e-9)
    assert 0.0 < ours < 1.0


def test_no_variance_is_added_where_the_level_stays() -> None:
    assert ddim_variance(0.5, 0.5) == 0.0
    assert math.isclose(ddim_variance(0.9, 0.4), (0.1 / 0.6) * (1.0 - 0.4 / 0.9))
