"""Small scenes that the rasteriser's tests share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sdi_gs.rasterize.scenes import BallScene, ball_scene


@pytest.fixture
def make_scene() -> Callable[..., BallScene]:
    return ball_scene
