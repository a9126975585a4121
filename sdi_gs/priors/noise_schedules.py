"""Noise schedules by formula.

Letters: T diffusion timesteps.
"""

from __future__ import annotations

import torch

from sdi_gs.contracts import NoiseSchedule


def scaled_linear_schedule(
    *, beta_start: float = 0.00085, beta_end: float = 0.012, num_timesteps: int = 1000
) -> NoiseSchedule:
    """Stable Diffusion's schedule: betas linear in their square roots (SD 2.1's scheduler config)."""
    roots = torch.linspace(beta_start**0.5, beta_end**0.5, num_timesteps, dtype=torch.float64)
    alphas_cumprod = torch.cumprod(1.0 - roots**2, dim=0)
    return NoiseSchedule(alphas_cumprod=alphas_cumprod, initial_alpha_cumprod=float(alphas_cumprod[0]), steps_offset=1)
