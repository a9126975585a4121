"""The unconditional score one interval below t: Interval Score Matching."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sdi_gs.contracts import NoiseSchedule
from sdi_gs.guidance.inversion import invert_ddim
from sdi_gs.guidance.noise_sources.protocol import NoiseRequest, NoiseSource
from sdi_gs.guidance.schedule import inversion_grid
from sdi_gs.guidance.step_plan import StepPlan
from sdi_gs.settings.guidance import GuidanceConfig

INTERVAL = 0.05
"""t - s as a share of T: 50 of 1000 timesteps (LucidDreamer's delta_t)."""


@dataclass(frozen=True, kw_only=True)
class Interval(NoiseSource):
    """The noise that the prior predicts without the prompt at s = t - interval (ISM, arXiv 2311.11284).

    The latents are inverted to s without the prompt and without added noise; kappa is the prediction there, so that
    the gradient is sigma(t) (eps_t - eps_s), the difference of two scores. ISM predicts eps_t at the inverted latents,
    one DDIM step above s; here, as for every source, it is predicted at the latents noised with kappa. That step
    starts from the clean prediction at s, this noising from the latents.
    """

    def grid(self, plan: StepPlan, config: GuidanceConfig, schedule: NoiseSchedule) -> list[int]:
        """Return the timesteps of the inversion, the clean start first and s last."""
        interval = round(INTERVAL * schedule.num_timesteps)
        last = max(plan.timestep - interval, schedule.steps_offset)
        return inversion_grid(last, 0, num_steps=config.inversion_steps, schedule=schedule)

    def infer(self, request: NoiseRequest) -> Tensor:
        """Invert the latents to s and return the prediction there [B, C, h, w]."""
        grid = self.grid(request.plan, request.config, request.schedule)
        inverted = invert_ddim(
            lambda noised, timestep: request.predict(noised, timestep, 0.0),
            request.latents,
            grid,
            schedule=request.schedule,
            eta=0.0,
            generator=request.generator,
        )
        return request.predict(inverted, grid[-1], 0.0)

    def num_calls(self, plan: StepPlan, config: GuidanceConfig, schedule: NoiseSchedule) -> int:
        """Return the number of the inversion's steps, and one."""
        return len(self.grid(plan, config, schedule))
