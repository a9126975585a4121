"""A Gaussian mixture whose score is exact: eight modes in sixteen dimensions, three of them prompted.

Letters: B points, D = 16 dimensions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sdi_gs.guidance.schedule import predicted_clean
from sdi_gs.priors.noise_schedules import scaled_linear_schedule
from sdi_gs.priors.picture_mixture import Mixture, mixture_noise

DIMENSIONS, MODES, PROMPTED_MODES, STD = 16, 8, 3, 0.8
SCHEDULE = scaled_linear_schedule()


class ToyMixture:
    """Return seeded modes, and latents [B, D] halfway between a coarse guess and a sample of the prompted modes."""

    def __init__(self, seed: int, points: int = 128) -> None:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        centres = normal(MODES, DIMENSIONS)
        self.unconditional = _even_mixture(centres)
        self.conditional = _even_mixture(centres[:PROMPTED_MODES])
        start = normal(points, DIMENSIONS)
        top = SCHEDULE.num_timesteps - 1
        coarse = predicted_clean(start, self.guided(1.0)(start, top), SCHEDULE.alpha_cumprod(top))
        modes = torch.randint(PROMPTED_MODES, (points,), generator=generator)
        self.latents = 0.5 * coarse + 0.5 * (centres[modes] + STD * normal(points, DIMENSIONS))

    def guided(self, scale: float) -> Callable[[Tensor, int], Tensor]:
        """Return the exact noise prediction e_u + scale (e_c - e_u)."""

        def predict(noised: Tensor, timestep: int) -> Tensor:
            level = SCHEDULE.alpha_cumprod(timestep)
            unconditional = mixture_noise(noised, self.unconditional, level, STD)
            return unconditional + scale * (mixture_noise(noised, self.conditional, level, STD) - unconditional)

        return predict


def _even_mixture(centres: Tensor) -> Mixture:
    return Mixture(
        centres=centres,
        log_weights=torch.zeros(len(centres), dtype=centres.dtype),
        half_norms=0.5 * centres.square().sum(dim=1),
    )
