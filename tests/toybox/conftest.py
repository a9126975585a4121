"""Cameras that the toybox tests share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from sdi_gs.cameras import CameraBatch, orbit_cameras
from sdi_gs.toybox.objects import CAMERA_DISTANCE, CAMERA_FOV_Y_DEG


@pytest.fixture
def cameras_at() -> Callable[..., CameraBatch]:
    """Return cameras at (azimuth, elevation) pairs in degrees, at toybox's usual distance and field of view."""

    def build(views: list[tuple[float, float]], size: int = 64) -> CameraBatch:
        azimuth, elevation = torch.tensor(views).unbind(1)
        return orbit_cameras(
            azimuth,
            elevation,
            torch.full_like(azimuth, CAMERA_DISTANCE),
            torch.full_like(azimuth, CAMERA_FOV_Y_DEG),
            width=size,
            height=size,
        )

    return build
