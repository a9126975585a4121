"""kappa, the noise that a latent is shown with: where SDI differs from SDS.

Score distillation with noise kappa is one step of DDIM in a change of variables (SDI paper, eq. 10). The right
kappa solves kappa = eps_t(sqrt(a_t) z + sqrt(1 - a_t) kappa); i.i.d. noise gives SDS, and inverting the latent
under the prompt with negative guidance gives SDI (sdi_gs.guidance.inversion).

Letters: B images, C latent channels, h w latent pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sdi_gs.contracts import NoiseSchedule
from sdi_gs.guidance.schedule import add_noise

NoisePredictor = Callable[[Tensor, int], Tensor]
"""Guided noise [B, C, h, w] of a noised latent [B, C, h, w] at a timestep."""


def random_noise(
    latents: Tensor,  # [B, C, h, w]
    generator: torch.Generator,
) -> Tensor:
    """I.i.d. normal noise [B, C, h, w]: kappa of SDS."""
    return torch.randn(latents.shape, generator=generator, dtype=latents.dtype, device=latents.device)


def fixed_noise(
    carried: Tensor | None,  # [1, C, h, w]
    latents: Tensor,  # [B, C, h, w]
    generator: torch.Generator,
) -> Tensor:
    """One draw for all images [B, C, h, w]: the carried one, or a first one where there is none yet."""
    noise = random_noise(latents[:1], generator) if carried is None else carried
    return noise.expand_as(latents)


def iterated_noise(
    predict: NoisePredictor,
    latents: Tensor,  # [B, C, h, w]
    timestep: int,
    start: Tensor,  # [B, C, h, w]
    *,
    schedule: NoiseSchedule,
    iterations: int,
) -> Tensor:
    """kappa [B, C, h, w] after some fixed-point iterations of kappa = eps_t(sqrt(a_t) z + sqrt(1 - a_t) kappa).

    The equation is the paper's eq. 8. The iteration hardly contracts at high noise, and under guidance it diverges;
    it is here to be compared with.
    """
    level, noise = schedule.alpha_cumprod(timestep), start
    for _ in range(iterations):
        noise = predict(add_noise(latents, noise, level), timestep)
    return noise


def noise_between(
    noised_latents: Tensor,  # [B, C, h, w]
    latents: Tensor,  # [B, C, h, w]
    level: float,
) -> Tensor:
    """The kappa [B, C, h, w] that turns clean latents into noised ones at a level."""
    return (noised_latents - math.sqrt(level) * latents) / math.sqrt(1.0 - level)
