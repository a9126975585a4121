"""A step's views on their way to and from the prior.

Letters: B views, C latent channels, H W pixels, h w latent pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.contracts import DiffusionPrior, GuidanceOutput, RenderOutput
from sdi_gs.row_groups import row_groups


@dataclass(frozen=True, kw_only=True)
class SeenViews:
    """What a step has rendered."""

    render: RenderOutput
    pictures: Tensor  # [B, H, W, 3] the renders at the prior's size
    latents: Tensor | None  # [B, C, h, w]
    timestep: int
    """t of the latest target."""
    cameras: CameraBatch | None = None
    """On the host, of new views."""
    guided: GuidanceOutput | None = None
    """The targets of new views."""


def resized(
    pictures: Tensor,  # [B, h, w, 3]
    side: int,
) -> Tensor:  # [B, side, side, 3]
    """Return square pictures of another size, differentiably; bilinear, with a filter only where they shrink."""
    height, width = pictures.shape[1:3]
    if (height, width) == (side, side):
        return pictures
    changed = F.interpolate(
        pictures.permute(0, 3, 1, 2),
        size=(side, side),
        mode="bilinear",
        align_corners=False,
        antialias=side < max(height, width),
    )
    return changed.permute(0, 2, 3, 1)


def decoded(
    prior: DiffusionPrior,
    latents: Tensor,  # [B, C, h, w]
    at_once: int,
) -> Tensor:  # [B, H, W, 3]
    """Return the latents' pictures, decoded ``at_once`` at a time (0: all)."""
    return torch.cat([prior.decode_latents(latents[group]) for group in row_groups(len(latents), at_once)])
