"""kappa, the noise that a latent is shown with: where SDI differs from SDS.

Score distillation with noise kappa is one step of DDIM in a change of variables (SDI paper, eq. 10). The right
kappa solves kappa = eps_t(sqrt(a_t) z + sqrt(1 - a_t) kappa); i.i.d. noise gives SDS, and inverting the latent
under the prompt with negative guidance gives SDI.

Letters: B images, C latent channels, h w latent pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sdi_gs.contracts import NoiseSchedule
from sdi_gs.guidance.schedule import add_noise, ddim_variance, predicted_clean

NoisePredictor = Callable[[Tensor, int], Tensor]
"""Guided noise [B, C, h, w] of a noised latent [B, C, h, w] at a timestep."""


def random_noise(
    latents: Tensor,  # [B, C, h, w]
    generator: torch.Generator,
) -> Tensor:
    """I.i.d. normal noise [B, C, h, w]: kappa of SDS."""
    return torch.randn(latents.shape, generator=generator, dtype=latents.dtype, device=latents.device)


def invert_ddim(
    predict: NoisePredictor,
    latents: Tensor,  # [B, C, h, w]
    grid: list[int],
    *,
    schedule: NoiseSchedule,
    eta: float,
    generator: torch.Generator,
) -> Tensor:
    """Carry clean latents up the grid to its last level by first-order DDIM inversion (paper, algorithm 2).

    The predictor is asked at the source of each step, as the published code does, so its first call is at the
    grid's negative start. ``eta`` adds DDIM's variance at every step without reducing the direction term
    (sdi.md 1.4).

    Returns the noised latents [B, C, h, w] at ``grid[-1]``.
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


def noise_between(
    noised_latents: Tensor,  # [B, C, h, w]
    latents: Tensor,  # [B, C, h, w]
    level: float,
) -> Tensor:
    """The kappa [B, C, h, w] that turns clean latents into noised ones at a level."""
    return (noised_latents - math.sqrt(level) * latents) / math.sqrt(1.0 - level)
