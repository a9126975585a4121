"""Versions and memory in a run's summary."""

from __future__ import annotations

from importlib import metadata

import pytest
import torch

from sdi_gs.runs.provenance import peak_rss_mb, versions


def test_peak_memory_is_in_mebibytes() -> None:
    # An interpreter with torch takes hundreds of MiB, neither one nor millions.
    assert 50 < peak_rss_mb() < 100_000


def test_versions_of_what_is_missing_are_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    found = metadata.version

    def version(name: str) -> str:
        if name == "viser":
            raise metadata.PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(metadata, "version", version)
    assert versions()["viser"] == "missing"
    assert versions()["torch"] == torch.__version__


def test_versions_name_what_decides_a_result() -> None:
    assert versions()["torch"] == torch.__version__
    assert {"python", "sdi-gs", "gsplat", "numba", "numpy", "diffusers"} <= set(versions())
