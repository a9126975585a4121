"""Where compiled kernels are kept, and what a first use says."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from numba.core import caching, config

from sdi_gs.rasterize import rasterization
from sdi_gs.rasterize.kernels import jit


def _double(value: float) -> float:
    return 2.0 * value


@pytest.fixture
def writable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """The folders that take numba's files; at first the user's cache, and not the one beside the sources."""
    folders = [tmp_path]
    ensure = caching._CacheLocator.ensure_cache_path

    def ensure_if_writable(self: Any) -> None:
        if not any(Path(self.get_cache_path()).is_relative_to(folder) for folder in folders):
            raise OSError("Read-only file system")
        ensure(self)

    monkeypatch.setattr(caching._CacheLocator, "ensure_cache_path", ensure_if_writable)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(config, "CACHE_DIR", "")
    return folders


def test_a_read_only_install_keeps_its_kernels_in_the_users_cache(writable: list[Path]) -> None:
    kernel = jit.kernel(_double)
    assert not jit.is_compiled(kernel)
    assert kernel(2.0) == 4.0
    assert list(writable[0].rglob("test_jit._double-*.nbc"))
    # A process that starts afresh finds it.
    again = jit.kernel(_double)
    assert not again.overloads and jit.is_compiled(again)
    assert again(2.0) == 4.0 and sum(again.stats.cache_hits.values()) == 1


def test_kernels_work_where_nothing_can_be_kept(writable: list[Path]) -> None:
    writable.clear()
    kernel = jit.kernel(_double)
    assert not jit.is_compiled(kernel)
    assert kernel(2.0) == 4.0
    assert jit.is_compiled(kernel)


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
