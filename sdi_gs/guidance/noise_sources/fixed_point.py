"""Fixed-point iteration of the paper's equation for kappa."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sdi_gs.contracts import NoiseSchedule
from sdi_gs.guidance.noise import random_noise
from sdi_gs.guidance.noise_sources.protocol import NoiseRequest, NoiseSource
from sdi_gs.guidance.schedule import add_noise
from sdi_gs.guidance.step_plan import StepPlan
from sdi_gs.settings.guidance import GuidanceConfig


@dataclass(frozen=True)
class FixedPoint(NoiseSource):
    """Iterations of kappa = eps_t(sqrt(a_t) z + sqrt(1 - a_t) kappa) (paper, eq. 8) from a random start.

    The iteration hardly contracts at high noise and diverges under guidance; it serves for comparison.
    """

    def infer(self, request: NoiseRequest) -> Tensor:
        """Iterate ``fixed_point_iterations`` times under the guidance scale; returns kappa [B, C, h, w]."""
        config, timestep = request.config, request.timestep
        alpha_cumprod = request.schedule.alpha_cumprod(timestep)
        noise = random_noise(request.latents, request.generator)
        for _ in range(config.fixed_point_iterations):
            noised = add_noise(request.latents, noise, alpha_cumprod)
            noise = request.predict(noised, timestep, config.guidance_scale)
        return noise

    def num_calls(self, plan: StepPlan, config: GuidanceConfig, schedule: NoiseSchedule) -> int:
        """Return the number of iterations."""
        return config.fixed_point_iterations
