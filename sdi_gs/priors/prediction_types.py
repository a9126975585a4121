"""What diffusion models predict, converted to the noise in it.

Letters: B images, C latent channels, h w latent pixels.
"""

from __future__ import annotations

import math
from typing import assert_never

from torch import Tensor

from sdi_gs.contracts import NoiseSchedule, PredictionType


def noise_from_prediction(
    predicted: Tensor,  # [B, C, h, w]
    noised_latents: Tensor,  # [B, C, h, w]
    schedule: NoiseSchedule,
    timestep: int,
    *,
    prediction_type: PredictionType,
) -> Tensor:
    """Return the noise [B, C, h, w] in a prediction of noise, of v = sqrt(a) eps - sqrt(1 - a) x0, or of x0."""
    level = schedule.alpha_cumprod(timestep)
    match prediction_type:
        case "epsilon":
            return predicted
        case "v_prediction":
            return math.sqrt(level) * predicted + math.sqrt(1.0 - level) * noised_latents
        case "sample":
            # Level 1 of a clean latent would divide by zero; the U-Net treats it as level a_0.
            level = min(level, schedule.alpha_cumprod(0))
            return (noised_latents - math.sqrt(level) * predicted) / math.sqrt(1.0 - level)
        case _:
            assert_never(prediction_type)
