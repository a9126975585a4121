"""DDIM inversion: from clean latents back to the noise that the prior would have generated them from.

Notation of the SDI paper (arXiv 2405.15891): a_t = alphas_cumprod[t], sigma(t) = sqrt((1 - a_t) / a_t), z the clean
latents, kappa the noise that takes z to x_t = sqrt(a_t) z + sqrt(1 - a_t) kappa.

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
from sdi_gs.settings.guidance import InversionOrder, InversionSpacing

DATA_STD = 0.5
"""Standard deviation of the Gaussian data for which second order is exact, in latent units (EDM's sigma_data,
arXiv 2206.00364)."""


def inversion_timesteps(
    timestep: int,
    overshoot: int,
    *,
    num_steps: int,
    schedule: NoiseSchedule,
    spacing: InversionSpacing,
    data_std: float = DATA_STD,
) -> list[int]:
    """Return the inversion grid; both spacings make equally many calls for the same ``num_steps``."""
    match spacing:
        case "timesteps":
            return inversion_grid(timestep, overshoot, num_steps=num_steps, schedule=schedule)
        case "sigma":
            return sigma_grid(timestep, overshoot, num_steps=num_steps, schedule=schedule, data_std=data_std)
        case _:
            assert_never(spacing)


def sigma_grid(
    timestep: int,
    overshoot: int,
    *,
    num_steps: int,
    schedule: NoiseSchedule,
    data_std: float = DATA_STD,
) -> list[int]:
    """Return timesteps up to t + overshoot that are evenly spaced in asinh(sigma / data_std).

    They allow as many calls as ``inversion_grid`` does, except at small t, with fewer timesteps below it.
    """
    last = inversion_end(timestep, overshoot, schedule)
    calls = len(inversion_grid(timestep, overshoot, num_steps=num_steps, schedule=schedule)) - 1
    alphas = schedule.alphas_cumprod
    position = torch.asinh(torch.sqrt((1.0 - alphas) / alphas) / data_std)
    fractions = torch.arange(1, calls + 1, dtype=alphas.dtype) / (calls + 1)
    nearest = (position[:, None] - fractions * position[last]).abs().argmin(dim=0).tolist()
    # Close to t = 0 there are fewer timesteps than calls.
    return [*sorted({timestep for timestep in nearest if timestep < last} or {last}), last]


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
    """Return the latents [B, C, h, w] that inversion along the grid noises to ``grid[-1]``.

    The predictor is called at every entry but the last. ``eta`` adds that share of DDIM's variance at every step
    without reducing the direction term. ``data_std`` is the standard deviation of the data that second order assumes.
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
    """Invert by first-order DDIM steps (paper, algorithm 2).

    Each step calls the predictor at its source, as the published code does, so the first call is at the grid's
    negative start.
    """
    noised = latents
    for source, destination in zip(grid[:-1], grid[1:], strict=True):
        source_alpha, destination_alpha = schedule.alpha_cumprod(source), schedule.alpha_cumprod(destination)
        noise = predict(noised, source)
        noised = add_noise(predicted_clean(noised, noise, source_alpha), noise, destination_alpha)
        if eta > 0.0:
            std = eta * math.sqrt(ddim_variance(source_alpha, destination_alpha))
            noised = noised + std * random_noise(latents, generator)
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
    """Invert by a two-step exponential integrator for kappa.

    DDIM's ODE d(x / sqrt(a)) / d sigma = eps, written for kappa = (x / sqrt(a) - z) / sigma, is

        d kappa / d(1 / sigma) = sigma (kappa - eps) = x0 - z,

    the drift of the clean prediction x0 from z. For Gaussian data of standard deviation s the drift is proportional
    to q = 1 - s / sqrt(s^2 + sigma^2), so it is assumed linear in q between calls and integrated in closed form.
    The first call is at z without noise; for Gaussian data it yields the distance of z from the mean, and from that
    follow kappa and the drift there.
    """
    kappa, previous_drift, previous_q = torch.zeros_like(latents), torch.zeros_like(latents), 0.0
    for source, destination in zip(grid[:-1], grid[1:], strict=True):
        source_alpha, destination_alpha = schedule.alpha_cumprod(source), schedule.alpha_cumprod(destination)
        source_sigma = sigma(schedule, source)
        q = _gaussian_drift(source_sigma, data_std)
        noise = predict(add_noise(latents, kappa, source_alpha), source)
        if source == grid[0]:
            # z minus the mean.
            offset = (data_std**2 + source_sigma**2) / source_sigma * noise
            drift = -q * offset
            kappa = (math.hypot(data_std, source_sigma) / data_std - 1.0) / source_sigma * offset
        else:
            drift = source_sigma * (kappa - noise)
        slope = (drift - previous_drift) / (q - previous_q)
        change, q_integral = _integrals(source_sigma, sigma(schedule, destination), data_std)
        kappa = kappa + change * (drift - q * slope) + q_integral * slope
        if eta > 0.0:
            std = eta * math.sqrt(ddim_variance(source_alpha, destination_alpha) / (1.0 - destination_alpha))
            kappa = kappa + std * random_noise(latents, generator)
        previous_drift, previous_q = drift, q
    return add_noise(latents, kappa, schedule.alpha_cumprod(grid[-1]))


def _gaussian_drift(sigma: float, data_std: float) -> float:
    """Return q, the fraction of the way to the mean that the clean prediction of Gaussian data has gone at sigma."""
    return 1.0 - data_std / math.hypot(data_std, sigma)


def _integrals(source: float, destination: float, data_std: float) -> tuple[float, float]:
    """Return the integrals of 1 and of q over 1 / sigma between two sigmas."""
    change = 1.0 / destination - 1.0 / source

    def antiderivative(sigma: float) -> float:
        return math.hypot(data_std, sigma) / (data_std * sigma)

    return change, change - (antiderivative(destination) - antiderivative(source))
