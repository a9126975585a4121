"""Triton's way of a field without its kernels, which need a driver: their launches do nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import ModuleType
from typing import Any

import pytest
import torch

from sdi_gs.representations.ngp import backends, compositing, triton_query


class NoKernels(ModuleType):
    """A module of kernels that do nothing, for sizes that Triton's have."""

    POINTS, RAYS, SAMPLES, MOST_UNITS = 16, 128, 32, 64

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __getitem__(self, programs: tuple[int, ...]) -> Any:
        return lambda *_, **__: None


@contextmanager
def triton_without_kernels() -> Iterator[None]:
    """Let fields on CUDA take Triton's way, with kernels that do nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backends, "has_triton", lambda: True)
        patch.setattr(compositing, "has_triton", lambda: True)
        patch.setattr(torch.cuda, "device", lambda _: nullcontext())
        for module in ("encoding", "networks", "marching", "compositing"):
            name = f"sdi_gs.representations.ngp.kernels.triton_{module}"
            patch.setitem(sys.modules, name, NoKernels(name))
        yield
    triton_query._layout_on.cache_clear()
