"""Noise by DDIM inversion: Score Distillation via Inversion, and its unconditional form."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sdi_gs.contracts import NoiseSchedule
from sdi_gs.guidance.inversion import inversion_timesteps, invert_ddim
from sdi_gs.guidance.noise import noise_between
from sdi_gs.guidance.noise_sources.protocol import NoiseRequest, NoiseSource
from sdi_gs.guidance.schedule import inversion_end
from sdi_gs.guidance.step_plan import StepPlan
from sdi_gs.settings.guidance import GuidanceConfig


@dataclass(frozen=True, kw_only=True)
class Inversion(NoiseSource):
    """The noise that DDIM inversion of the latents ends in (SDI paper, algorithm 2)."""

    scale: float | None = None
    """Guidance scale of the inversion; None for the one in the settings."""

    def grid(self, plan: StepPlan, config: GuidanceConfig, schedule: NoiseSchedule) -> list[int]:
        """Return the timesteps that the inversion visits, the clean start first."""
        return inversion_timesteps(
            plan.timestep,
            plan.overshoot,
            num_steps=config.inversion_steps,
            schedule=schedule,
            spacing=config.resolved_inversion_spacing,
            data_std=config.inversion_data_std,
        )

    def infer(self, request: NoiseRequest) -> Tensor:
        """Invert the latents and return the kappa [B, C, h, w] that noises them to the inversion's end."""
        config, schedule = request.config, request.schedule
        scale = config.resolved_inversion_scale if self.scale is None else self.scale
        grid = self.grid(request.plan, config, schedule)
        inverted = invert_ddim(
            lambda noised, timestep: request.predict(noised, timestep, scale),
            request.latents,
            grid,
            schedule=schedule,
            eta=config.inversion_eta,
            generator=request.generator,
            order=config.inversion_order,
            data_std=config.inversion_data_std,
        )
        return noise_between(inverted, request.latents, schedule.alpha_cumprod(grid[-1]))

    def shown_timestep(self, plan: StepPlan, config: GuidanceConfig, schedule: NoiseSchedule) -> int:
        """Return t, or with ``renoise="reference"`` the inversion's end, where kappa gives the inverted latents."""
        if config.renoise == "reference":
            return inversion_end(plan.timestep, plan.overshoot, schedule)
        return plan.timestep

    def num_calls(self, plan: StepPlan, config: GuidanceConfig, schedule: NoiseSchedule) -> int:
        """Return the number of the inversion's steps."""
        return len(self.grid(plan, config, schedule)) - 1


def unconditional_inversion() -> Inversion:
    """Return an inversion without the prompt, as in ISM (arXiv 2311.11284)."""
    return Inversion(scale=0.0)
