"""The previous step's prediction as the next step's noise: DDIM."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sdi_gs.contracts import GuidanceOutput
from sdi_gs.guidance.noise import random_noise
from sdi_gs.guidance.noise_sources.protocol import NoiseRequest, NoiseSource


@dataclass(frozen=True)
class Cached(NoiseSource):
    """The noise that was predicted at the previous step, image by image.

    For latents that move all the way to their target, this is DDIM sampling (SDI paper, section 4).
    """

    def infer(self, request: NoiseRequest) -> Tensor:
        """Return the previous prediction, or a draw if there is none for these images [B, C, h, w]."""
        carried = request.carried
        # A single carried prediction would pass for that of any number of images.
        if carried is None or carried.shape != request.latents.shape:
            return random_noise(request.latents, request.generator)
        return carried

    def carry(self, output: GuidanceOutput) -> Tensor | None:
        """Return the prediction [B, C, h, w]."""
        return output.predicted_noise
