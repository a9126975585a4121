"""Timesteps and levels: the annealing of t over a run, the inversion grid, and DDIM's algebra.

Notation of the SDI paper (arXiv 2405.15891): a_t = alphas_cumprod[t], sigma(t) = sqrt((1 - a_t) / a_t).

Letters: B images, C latent channels, h w latent pixels.
"""

from __future__ import annotations

import math
from typing import assert_never

import torch
from torch import Tensor

from sdi_gs.contracts import NoiseSchedule
from sdi_gs.settings.guidance import Annealing


def sigma(schedule: NoiseSchedule, timestep: int) -> float:
    """Noise to signal ratio sqrt((1 - a_t) / a_t)."""
    level = schedule.alpha_cumprod(timestep)
    return math.sqrt((1.0 - level) / level)


def annealed_timestep(
    step: int,
    num_steps: int,
    *,
    t_max: float,
    t_min: float,
    annealing: Annealing,
    num_timesteps: int,
    generator: torch.Generator,
) -> int:
    """The timestep of a training step; ``t_max`` and ``t_min`` are fractions of the diffusion's length.

    "linear" is ``int(T * ((t_max - t_min) * (1 - step / num_steps) + t_min))`` (published code), tied
    to the run's own length. "sqrt" spends more of the run at low noise, "uniform" draws t as DreamFusion does.
    """
    match annealing:
        case "linear":
            fraction = (t_max - t_min) * (1.0 - step / num_steps) + t_min
        case "sqrt":
            fraction = t_max - (t_max - t_min) * math.sqrt(step / num_steps)
        case "uniform":
            draw = torch.rand((), generator=generator).item()
            fraction = t_min + (t_max - t_min) * draw
        case _:
            assert_never(annealing)
    return min(int(num_timesteps * fraction), num_timesteps - 1)


def inversion_grid(
    timestep: int,
    overshoot: int,
    *,
    num_steps: int,
    schedule: NoiseSchedule,
) -> list[int]:
    """Timesteps that an inversion visits: a clean start, the fixed grid below t, and t + overshoot.

    The stride is ``T // num_steps`` whatever t is, so small t costs fewer calls (published code). The
    first entry is one stride before the grid, hence negative: it stands for the clean latent. The grid itself is the
    one of the schedule's spacing: from the offset up, or from T - 1 down.

    >>> inversion_grid(500, 50, num_steps=10, schedule=...)
    [-99, 1, 101, 201, 301, 401, 550]
    """
    stride = schedule.num_timesteps // num_steps
    match schedule.timestep_spacing:
        case "leading":
            grid = [k * stride + schedule.steps_offset for k in range(num_steps)]
        case "trailing":
            grid = [round((k + 1) * schedule.num_timesteps / num_steps) - 1 for k in range(num_steps)]
        case _:
            assert_never(schedule.timestep_spacing)
    below = [k for k in grid if k < timestep]
    return [grid[0] - stride, *below, inversion_end(timestep, overshoot, schedule)]


def inversion_end(timestep: int, overshoot: int, schedule: NoiseSchedule) -> int:
    """The timestep at which an inversion ends: past t by the overshoot, but no further than the last."""
    return min(timestep + overshoot, schedule.num_timesteps - 1)


def add_noise(
    latents: Tensor,  # [B, C, h, w]
    noise: Tensor,  # [B, C, h, w]
    level: float,
) -> Tensor:
    """sqrt(a) z + sqrt(1 - a) kappa at level a."""
    return math.sqrt(level) * latents + math.sqrt(1.0 - level) * noise


def predicted_clean(
    noised_latents: Tensor,  # [B, C, h, w]
    noise: Tensor,  # [B, C, h, w]
    level: float,
) -> Tensor:
    """The clean latent (x - sqrt(1 - a) eps) / sqrt(a) that a noise prediction implies at level a."""
    return (noised_latents - math.sqrt(1.0 - level) * noise) / math.sqrt(level)


def ddim_variance(source_level: float, destination_level: float) -> float:
    """DDIM's variance of the move between two levels, as the published inversion uses it."""
    return (1.0 - source_level) / (1.0 - destination_level) * (1.0 - destination_level / source_level)
