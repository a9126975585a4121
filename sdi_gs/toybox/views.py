"""The usual cameras of toybox.

Letters: B cameras.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch, orbit_cameras

CAMERA_DISTANCE = 3.3
"""Distance of the cameras from the origin, scene units."""
CAMERA_FOV_Y_DEG = 40.0
"""Vertical field of view: the sphere of radius 0.95 fits with a margin."""


def toybox_cameras(
    azimuth_deg: Tensor,  # [B]
    elevation_deg: Tensor,  # [B]
    *,
    size: int,
) -> CameraBatch:
    """Return cameras of the usual distance and field of view for square images of ``size`` pixels."""
    return orbit_cameras(
        azimuth_deg,
        elevation_deg,
        torch.full_like(azimuth_deg, CAMERA_DISTANCE),
        torch.full_like(azimuth_deg, CAMERA_FOV_Y_DEG),
        width=size,
        height=size,
    )
