"""One of two objects cut out of the views of a scene, as if it stood alone in the middle.

Letters: V views, H W pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.toybox import metrics
from sdi_gs.toybox.objects import PlacedObject
from sdi_gs.toybox.truth import render_truth
from sdi_gs.toybox.views import CAMERA_DISTANCE

MOSTLY_SEEN = 0.7
"""Share of an object's silhouette that must not be hidden for a view to show it."""
HIDING_MARGIN = 1
"""Pixels around the other object that are taken away with it."""


def pixels_of_objects(
    item: PlacedObject, other: PlacedObject, cameras: CameraBatch
) -> tuple[Tensor, Tensor]:  # [V, H, W] bool, [V]
    """Return the pixels that show the other object of a scene, and the share of the item that it leaves visible."""
    ours, theirs = render_truth([item], cameras), render_truth([other], cameras)
    mask, other_mask = metrics.silhouette(ours.alpha), metrics.silhouette(theirs.alpha)
    other_shown = other_mask & ~(mask & (ours.depth[..., 0] <= theirs.depth[..., 0]))
    visible = (mask & ~other_shown).sum(dim=(1, 2)) / mask.sum(dim=(1, 2)).clamp_min(1)
    return other_shown, visible


def crop_object(
    rgb: Tensor,  # [V, H, W, 3] over white
    other_shown: Tensor,  # [V, H, W] bool
    item: PlacedObject,
    cameras: CameraBatch,
) -> Tensor:  # [V, H, W, 3]
    """Return the views of one object as large and as central as it is alone, the other one painted white."""
    taken = metrics.dilate(other_shown, HIDING_MARGIN)
    darkness = ((1.0 - rgb) * ~taken[..., None]).permute(0, 3, 1, 2)
    camera_from_world = torch.linalg.inv(cameras.world_from_camera.double())
    place = torch.tensor([*item.position, 1.0], dtype=torch.float64)
    x, y, z, _ = (camera_from_world @ place).unbind(dim=-1)
    intrinsics = cameras.intrinsics.double()
    # Where the object's middle is, in the units of grid_sample: -1 and 1 at the picture's borders.
    across = 2.0 * (intrinsics[:, 0, 0] * x / z + intrinsics[:, 0, 2]) / cameras.width - 1.0
    down = 2.0 * (intrinsics[:, 1, 1] * y / z + intrinsics[:, 1, 2]) / cameras.height - 1.0
    size = item.scale * CAMERA_DISTANCE / z
    zero = torch.zeros_like(size)
    window = torch.stack([torch.stack([size, zero, across], dim=-1), torch.stack([zero, size, down], dim=-1)], dim=1)
    grid = F.affine_grid(window.float(), list(darkness.shape), align_corners=False)
    # Outside of the picture is nothing.
    return 1.0 - F.grid_sample(darkness, grid, align_corners=False, padding_mode="zeros").permute(0, 2, 3, 1)
