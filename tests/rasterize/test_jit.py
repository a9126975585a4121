"""What a first use of the kernels says."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from sdi_gs.rasterize import rasterization


def test_compiling_is_announced_in_one_line(
    make_scene: Callable[..., Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = make_scene(3)
    rasterization(**scene.leaves(), **scene.cameras())
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        rasterization(**scene.leaves(), **scene.cameras())
        assert caplog.messages == []
        monkeypatch.setattr("sdi_gs.rasterize.numba_backend.is_compiled", lambda kernel: False)
        rasterization(**scene.leaves(), **scene.cameras())
    assert caplog.messages == ["compiling CPU kernels (first use only, 10 to 20 s)"]
