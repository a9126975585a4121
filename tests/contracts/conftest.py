"""Recorded signatures, and stand-ins for packages that run on CUDA alone."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import tinycudann_stand_in

from sdi_gs.representations.ngp import networks, tiny_cuda_nn

RECORDED = Path(__file__).parent / "recorded"


@pytest.fixture
def recorded() -> Callable[[str, str], inspect.Signature]:
    """Return the recorded signature of a package's function."""
    return recorded_signature


def recorded_signature(package: str, name: str) -> inspect.Signature:
    text = json.loads((RECORDED / f"{package}.json").read_text(encoding="utf-8"))["signatures"][name]
    made: dict[str, Any] = {}
    exec(f"def function{text}: ...", made)
    return inspect.signature(made["function"])


@pytest.fixture
def tinycudann(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The stand-in under the package's name, used for every query of the field, as on a card with the package."""
    tinycudann_stand_in.made.clear()
    tinycudann_stand_in.seen.clear()
    tiny_cuda_nn._encoding.cache_clear()
    monkeypatch.setitem(sys.modules, "tinycudann", tinycudann_stand_in)
    monkeypatch.setattr(networks, "query_backend", lambda points, weights, layout: "tiny-cuda-nn")
    yield tinycudann_stand_in
    tiny_cuda_nn._encoding.cache_clear()
