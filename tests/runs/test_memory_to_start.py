"""Gaussians and renders that do not fit into memory are refused before anything is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sdi_gs.configs.presets import preset
from sdi_gs.errors import UserError
from sdi_gs.runs import memory_to_start
from sdi_gs.runs.memory_to_start import (
    BYTES_PER_GAUSSIAN,
    BYTES_PER_PROJECTION,
    BYTES_PER_RENDERED_PIXEL,
    require_memory,
)

CPU = torch.device("cpu")


def require(free: int | None, monkeypatch: pytest.MonkeyPatch, **values: Any) -> None:
    """Check the default's settings on a CPU with so many bytes free; None where that is not known."""
    monkeypatch.setattr(memory_to_start, "free_bytes", lambda device: free)
    require_memory(preset("toybox-ideal", values.pop("values", None), prompt="a blue robot", **values), device=CPU)


def test_gaussians_fit_to_the_last_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    # A patchwork object needs no renders, which would be asked for as well.
    values = {"gaussians.num_initial": 1000, "views_per_step": 2}
    monkeypatch.setattr(memory_to_start, "style_in", lambda prompt: "patchwork")
    needed = 1000 * (BYTES_PER_GAUSSIAN["cpu"] + 2 * BYTES_PER_PROJECTION)
    require(needed, monkeypatch, values=values)
    with pytest.raises(UserError, match=r"gaussians\.num_initial 1000 is too many for this memory.* give 999 or fewer"):
        require(needed - 1, monkeypatch, values=values)


@pytest.mark.parametrize(("views", "option"), [("words", "renders_per_view"), ("cameras", "renders_around")])
def test_renders_of_the_exact_prior_are_counted(monkeypatch: pytest.MonkeyPatch, views: str, option: str) -> None:
    values = {"guidance.views": views, "gaussians.num_initial": 1, "ideal_prior.image_size": 128}
    one = BYTES_PER_RENDERED_PIXEL * 128**2
    with pytest.raises(UserError, match=rf"ideal_prior\.{option} \d+ is too many .* give 3 or fewer"):
        require(3 * one, monkeypatch, values=values)


def test_where_free_memory_is_not_known_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    require(None, monkeypatch, values={"gaussians.num_initial": 10_000_000})


def test_a_run_that_starts_from_a_file_has_the_files_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory_to_start, "style_in", lambda prompt: "patchwork")
    monkeypatch.setattr(memory_to_start, "kind_of_start", lambda config: "splats")
    require(1, monkeypatch, values={"gaussians.init_from": str(tmp_path / "mine.ply")})
