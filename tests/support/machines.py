"""Made-up machines for tests of the toolchain: facts, and programs on the path; conftests import the fixtures."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sdi_gs.gsplat_build.toolchain import Card, Toolchain, Toolkit

ADA = Card(name="NVIDIA GeForce RTX 4090", capability=(8, 9), memory_gib=24.0)
TOOLKIT_13 = Toolkit(home="/env/nvidia/cu13", release="13.0", source="PyPI", newest_gcc=15)
TOOLKIT_12 = Toolkit(home="/usr/local/cuda", release="12.8", source="/usr/local/cuda", newest_gcc=14)

GOOD = Toolchain(
    python="3.12",
    torch="2.13.0+cu130",
    torch_cuda="13.0",
    torch_archs=("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"),
    driver="580.95.05",
    driver_cuda="13.0",
    cards=(ADA,),
    card_on_bus=True,
    toolkits=(TOOLKIT_13,),
    host_compiler="13.3.0",
    ninja=True,
    python_headers=True,
    free_memory_gib=24.0,
    cores=8,
    max_jobs=None,
    gsplat="1.5.3",
    library=None,
    other_torch=None,
)
"""A machine with everything that compiling needs, and nothing compiled yet."""


@pytest.fixture
def machine() -> Callable[..., Toolchain]:
    """Return a function that changes some facts of the good machine."""

    def make(**changes: Any) -> Toolchain:
        return replace(GOOD, **changes)

    return make


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a function that writes a named shell script to a folder, by default the first one on the path."""
    first = tmp_path / "programs"
    first.mkdir()
    monkeypatch.setenv("PATH", f"{first}{os.pathsep}{os.environ['PATH']}")

    def make(name: str, script: str, folder: Path | None = None) -> Path:
        file = (folder or first) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        return file

    return make
