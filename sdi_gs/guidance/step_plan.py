"""The plan of a step's guidance: choices made before the step's latents are known."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sdi_gs.guidance.schedule import annealed_timestep
from sdi_gs.settings.guidance import GuidanceConfig


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """A step's draws, made on the host so that nothing waits for the device."""

    timestep: int
    """t, shared by all images of the step."""
    overshoot: int = 0
    """Number of timesteps by which an inversion passes t."""
    warming_up: bool = False
    """Whether kappa is random, whatever the noise source is."""


def plan_step(
    config: GuidanceConfig,
    step: int,
    num_steps: int,
    *,
    num_timesteps: int,
    generator: torch.Generator,
) -> StepPlan:
    """Draw the plan of one step of a run; ``generator`` is on the host and always advances alike."""
    timestep = annealed_timestep(
        step,
        num_steps,
        t_max=config.t_max,
        t_min=config.t_min,
        annealing=config.annealing,
        t_max_final=config.t_max_final,
        annealing_end=config.annealing_end,
        num_timesteps=num_timesteps,
        generator=generator,
    )
    draw = torch.rand((), generator=generator).item()
    # The published code passes t by up to one stride of its grid, the paper by up to T / 30.
    longest = config.inversion_overshoot if config.renoise == "paper" else 1.0 / config.inversion_steps
    return StepPlan(
        timestep=timestep,
        overshoot=int(draw * longest * num_timesteps),
        warming_up=step < config.random_fraction * num_steps,
    )
