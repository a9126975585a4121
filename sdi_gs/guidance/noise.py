"""kappa, the noise that latents are noised with: where SDI differs from SDS.

Score distillation with noise kappa is one step of DDIM in a change of variables (SDI paper, eq. 10). The right
kappa solves kappa = eps_t(sqrt(a_t) z + sqrt(1 - a_t) kappa); i.i.d. noise gives SDS, and inverting the latents
under the prompt with negative guidance gives SDI. Each way is a class in sdi_gs.guidance.noise_sources.

Letters: B images, C latent channels, h w latent pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

NoisePredictor = Callable[[Tensor, int], Tensor]
"""Guided noise [B, C, h, w] of noised latents [B, C, h, w] at a timestep."""


def random_noise(
    latents: Tensor,  # [B, C, h, w]
    generator: torch.Generator,
) -> Tensor:
    """Draw i.i.d. normal noise [B, C, h, w] with the dtype and the device of the latents."""
    return torch.randn(latents.shape, generator=generator, dtype=latents.dtype, device=latents.device)


def noise_between(
    noised_latents: Tensor,  # [B, C, h, w]
    latents: Tensor,  # [B, C, h, w]
    alpha_cumprod: float,
) -> Tensor:
    """Return the kappa [B, C, h, w] that turns clean latents into the noised ones: ``add_noise`` solved for noise."""
    return (noised_latents - math.sqrt(alpha_cumprod) * latents) / math.sqrt(1.0 - alpha_cumprod)
