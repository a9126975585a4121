"""Pictures as CLIP's and BLIP's networks take them.

Letters: V pictures, H W pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of the channels of CLIP's training pictures, which BLIP and ImageReward use as well."""


def network_input(
    pictures: np.ndarray,  # [V, H, W, 3] uint8, square
    size: int,
) -> Tensor:  # [V, 3, size, size]
    """Return pictures as OpenAI's CLIP prepares them: bicubic with Pillow on bytes, then normalised."""
    from PIL import Image

    resized = [Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC) for picture in pictures]
    values = torch.from_numpy(np.stack([np.asarray(picture) for picture in resized])).float() / 255.0
    return ((values - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2)
