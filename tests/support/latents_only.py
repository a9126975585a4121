"""A prior for tests of the guidance, which calls nothing of a prior but ``predict_noise``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sdi_gs.priors.noise_schedules import scaled_linear_schedule


class LatentsOnlyPrior:
    """Stable Diffusion's schedule without images and texts; a test's prior adds ``predict_noise``."""

    name = "latents-only"
    image_size = 1
    knows_cameras = False
    schedule = scaled_linear_schedule()

    def embed_prompts(self, prompts: Sequence[str]) -> Tensor:
        raise NotImplementedError

    def encode_images(self, images: Tensor, generator: torch.Generator) -> Tensor:
        raise NotImplementedError

    def decode_latents(self, latents: Tensor) -> Tensor:
        raise NotImplementedError
