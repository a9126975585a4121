"""The annealing of t over a run, the inversion grid, and DDIM's formulas.

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
    """Return the noise to signal ratio sqrt((1 - a_t) / a_t)."""
    alpha_cumprod = schedule.alpha_cumprod(timestep)
    return math.sqrt((1.0 - alpha_cumprod) / alpha_cumprod)


def annealed_timestep(
    step: int,
    num_steps: int,
    *,
    t_max: float,
    t_min: float,
    annealing: Annealing,
    num_timesteps: int,
    generator: torch.Generator,
    t_max_final: float | None = None,
    annealing_end: float = 1.0,
) -> int:
    """Return the timestep of step ``step`` of ``num_steps``; the bounds of t are fractions of T.

    "linear" is ``int(T * ((t_max - t_min) * (1 - step / num_steps) + t_min))`` (published code). "sqrt" spends more
    of the run at low noise. Two draw, and alone use the generator: "uniform" from the whole range, as DreamFusion does,
    "widening" from int(T low) to int(T high), both included, where low falls evenly from t_max to t_min and high to
    ``t_max_final`` (MVDream). Each has fallen at ``annealing_end``, a share of the run.
    """
    progress = min(step / (num_steps * annealing_end), 1.0)
    match annealing:
        case "linear":
            fraction = (t_max - t_min) * (1.0 - progress) + t_min
        case "sqrt":
            fraction = t_max - (t_max - t_min) * math.sqrt(progress)
        case "uniform":
            draw = torch.rand((), generator=generator).item()
            fraction = t_min + (t_max - t_min) * draw
        case "widening":
            highest = t_max if t_max_final is None else t_max_final
            low, high = (int(num_timesteps * (t_max + (end - t_max) * progress)) for end in (t_min, highest))
            drawn = int(torch.randint(low, high + 1, (), generator=generator))
            return min(drawn, num_timesteps - 1)
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
    """Return the timesteps that a first-order inversion visits: the clean start, the grid below t, t + overshoot.

    The stride is ``T // num_steps`` for every t, so small t needs fewer calls (published code). The first entry is
    one stride before the grid, hence negative, and stands for the clean latents. The grid follows the schedule's
    spacing: up from the offset, or down from T - 1.

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
    """Return the timestep at which an inversion ends: t + overshoot, at most T - 1."""
    return min(timestep + overshoot, schedule.num_timesteps - 1)


def add_noise(
    latents: Tensor,  # [B, C, h, w]
    noise: Tensor,  # [B, C, h, w]
    alpha_cumprod: float,
) -> Tensor:
    """Return the noised latents sqrt(a) z + sqrt(1 - a) kappa [B, C, h, w] at a = ``alpha_cumprod``."""
    return math.sqrt(alpha_cumprod) * latents + math.sqrt(1.0 - alpha_cumprod) * noise


def predicted_clean(
    noised_latents: Tensor,  # [B, C, h, w]
    noise: Tensor,  # [B, C, h, w]
    alpha_cumprod: float,
) -> Tensor:
    """Return the clean latents (x - sqrt(1 - a) eps) / sqrt(a) [B, C, h, w] that predicted noise implies."""
    return (noised_latents - math.sqrt(1.0 - alpha_cumprod) * noise) / math.sqrt(alpha_cumprod)


def ddim_variance(source: float, destination: float) -> float:
    """Return DDIM's variance of a step between two values of alpha_cumprod, as the published inversion uses it."""
    return (1.0 - source) / (1.0 - destination) * (1.0 - destination / source)
