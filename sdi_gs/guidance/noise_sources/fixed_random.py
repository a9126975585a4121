"""Random noise that is drawn once."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sdi_gs.contracts import GuidanceOutput
from sdi_gs.guidance.noise import random_noise
from sdi_gs.guidance.noise_sources.protocol import NoiseRequest, NoiseSource


@dataclass(frozen=True)
class FixedRandom(NoiseSource):
    """One draw for all images and the whole run."""

    def infer(self, request: NoiseRequest) -> Tensor:
        """Return the carried draw, at the first step a new one, for all images [B, C, h, w]."""
        carried = request.carried
        noise = random_noise(request.latents[:1], request.generator) if carried is None else carried
        return noise.expand_as(request.latents)

    def carry(self, output: GuidanceOutput) -> Tensor | None:
        """Return the draw [1, C, h, w]."""
        return output.noise[:1]
