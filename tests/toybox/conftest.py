"""Cameras that the toybox tests share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from sdi_gs.cameras import CameraBatch
from sdi_gs.toybox.views import toybox_cameras


@pytest.fixture
def cameras_at() -> Callable[..., CameraBatch]:
    """Return cameras at (azimuth, elevation) pairs in degrees, at toybox's usual distance and field of view."""

    def build(views: list[tuple[float, float]], size: int = 64) -> CameraBatch:
        azimuth, elevation = torch.tensor(views).unbind(1)
        return toybox_cameras(azimuth, elevation, size=size)

    return build
