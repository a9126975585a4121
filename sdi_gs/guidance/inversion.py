"""Inversion of clean latents up the noise levels, to the noise that the prior itself would have started from.

Notation of the SDI paper (arXiv 2405.15891): a_t = alphas_cumprod[t], sigma(t) = sqrt((1 - a_t) / a_t), z the clean
latent, kappa the noise that takes z to x_t = sqrt(a_t) z + sqrt(1 - a_t) kappa.

Letters: B images, C latent channels, h w latent pixels.
"""

from __future__ import annotations

import math
from typing import assert_never

import torch
from torch import Tensor

from sdi_gs.contracts import NoiseSchedule
from sdi_gs.guidance.noise import NoisePredictor, random_noise
from sdi_gs.guidance.schedule import add_noise, ddim_variance, inversion_end, inversion_grid, predicted_clean, sigma
from sdi_gs.settings.guidance import InversionOrder

DATA_STD = 0.5
"""Width of the Gaussian data for which second order is exact, in latent units (EDM's sigma_data, arXiv 2206.00364).

Half a unit suits the mixtures of the tests; a trained network wants less (docs/reports/probe.md)."""


def inversion_timesteps(
    timestep: int,
    overshoot: int,
    *,
    num_steps: int,
    schedule: NoiseSchedule,
    order: InversionOrder,
    data_std: float = DATA_STD,
) -> list[int]:
    """The grid that suits an order; both have the same number of calls for the same ``num_steps``."""
    match order:
        case 1:
            return inversion_grid(timestep, overshoot, num_steps=num_steps, schedule=schedule)
        case 2:
            return second_order_grid(timestep, overshoot, num_steps=num_steps, schedule=schedule, data_std=data_std)
        case _:
            assert_never(order)


def second_order_grid(
    timestep: int,
    overshoot: int,
    *,
    num_steps: int,
    schedule: NoiseSchedule,
    data_std: float = DATA_STD,
) -> list[int]:
    """As many calls as ``inversion_grid`` would make, at even steps of asinh(sigma / data_std) from the clean latent
    to t + overshoot.
    """
    last = inversion_end(timestep, overshoot, schedule)
    calls = len(inversion_grid(timestep, overshoot, num_steps=num_steps, schedule=schedule)) - 1
    levels = schedule.alphas_cumprod
    spread = torch.asinh(torch.sqrt((1.0 - levels) / levels) / data_std)
    shares = torch.arange(1, calls + 1, dtype=levels.dtype) / (calls + 1)
    nearest = (spread[:, None] - shares * spread[last]).abs().argmin(dim=0).tolist()
    # Close to t = 0 there are fewer timesteps than calls.
    return [*sorted({at for at in nearest if at < last} or {last}), last]


def invert_ddim(
    predict: NoisePredictor,
    latents: Tensor,  # [B, C, h, w]
    grid: list[int],
    *,
    schedule: NoiseSchedule,
    eta: float,
    generator: torch.Generator,
    order: InversionOrder = 1,
    data_std: float = DATA_STD,
) -> Tensor:
    """Carry clean latents up the grid to its last level; the predictor is asked at every entry but the last.

    ``eta`` adds DDIM's variance at every step without reducing the direction term; ``data_std`` is the width of the
    Gaussian data that second order takes as its model.

    Returns the noised latents [B, C, h, w] at ``grid[-1]``.
    """
    match order:
        case 1:
            return _first_order(predict, latents, grid, schedule=schedule, eta=eta, generator=generator)
        case 2:
            return _second_order(
                predict, latents, grid, schedule=schedule, eta=eta, generator=generator, data_std=data_std
            )
        case _:
            assert_never(order)


def _first_order(
    predict: NoisePredictor,
    latents: Tensor,  # [B, C, h, w]
    grid: list[int],
    *,
    schedule: NoiseSchedule,
    eta: float,
    generator: torch.Generator,
) -> Tensor:
    """First-order DDIM inversion (paper, algorithm 2).

    The predictor is asked at the source of each step, as the published code does, so its first call is at the
    grid's negative start.
    """
    noised = latents
    for source, destination in zip(grid[:-1], grid[1:], strict=True):
        source_level, destination_level = schedule.alpha_cumprod(source), schedule.alpha_cumprod(destination)
        noise = predict(noised, source)
        noised = add_noise(predicted_clean(noised, noise, source_level), noise, destination_level)
        if eta > 0.0:
            spread = eta * math.sqrt(ddim_variance(source_level, destination_level))
            noised = noised + spread * random_noise(latents, generator)
    return noised


def _second_order(
    predict: NoisePredictor,
    latents: Tensor,  # [B, C, h, w]
    grid: list[int],
    *,
    schedule: NoiseSchedule,
    eta: float,
    generator: torch.Generator,
    data_std: float,
) -> Tensor:
    """A two-step exponential integrator for kappa itself.

    DDIM's ODE d(x / sqrt(a)) / d sigma = eps, written for kappa = (x / sqrt(a) - z) / sigma, is

        d kappa / d(1 / sigma) = sigma (kappa - eps) = x0 - z,

    how far the clean prediction x0 has drifted from z. For Gaussian data of width s the drift is in proportion to
    q = 1 - s / sqrt(s^2 + sigma^2), so it is taken to be linear in q between calls and integrated in closed form.
    The first call sees z without noise; for the Gaussian it tells how far z is from the mean, and that gives kappa
    and the drift there.
    """
    kappa, drift_before, share_before = torch.zeros_like(latents), torch.zeros_like(latents), 0.0
    for source, destination in zip(grid[:-1], grid[1:], strict=True):
        level, destination_level = schedule.alpha_cumprod(source), schedule.alpha_cumprod(destination)
        spread, share = sigma(schedule, source), _gaussian_drift(sigma(schedule, source), data_std)
        noise = predict(add_noise(latents, kappa, level), source)
        if source == grid[0]:
            # z minus the mean.
            offset = (data_std**2 + spread**2) / spread * noise
            drift, kappa = -share * offset, (math.hypot(data_std, spread) / data_std - 1.0) / spread * offset
        else:
            drift = spread * (kappa - noise)
        slope = (drift - drift_before) / (share - share_before)
        change, share_integral = _integrals(spread, sigma(schedule, destination), data_std)
        kappa = kappa + change * (drift - share * slope) + share_integral * slope
        if eta > 0.0:
            extra = eta * math.sqrt(ddim_variance(level, destination_level) / (1.0 - destination_level))
            kappa = kappa + extra * random_noise(latents, generator)
        drift_before, share_before = drift, share
    return add_noise(latents, kappa, schedule.alpha_cumprod(grid[-1]))


def _gaussian_drift(spread: float, data_std: float) -> float:
    """q: which share of its way to the mean a Gaussian's clean prediction has gone at a sigma."""
    return 1.0 - data_std / math.hypot(data_std, spread)


def _integrals(source: float, destination: float, data_std: float) -> tuple[float, float]:
    """The integrals of 1 and of q over 1 / sigma between two sigmas."""
    change = 1.0 / destination - 1.0 / source

    def antiderivative(spread: float) -> float:
        return math.hypot(data_std, spread) / (data_std * spread)

    return change, change - (antiderivative(destination) - antiderivative(source))
