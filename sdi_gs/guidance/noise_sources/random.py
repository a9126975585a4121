"""i.i.d. noise: Score Distillation Sampling."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sdi_gs.guidance.noise import random_noise
from sdi_gs.guidance.noise_sources.protocol import NoiseRequest, NoiseSource


@dataclass(frozen=True)
class Random(NoiseSource):
    """A new draw at every step and for every image: SDS (arXiv 2209.14988)."""

    def infer(self, request: NoiseRequest) -> Tensor:
        """Draw kappa [B, C, h, w]."""
        return random_noise(request.latents, request.generator)
