"""Settings of mesh extraction from a density."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from sdi_gs.settings.bounds import SHARE, Range, check_settings

COARSEST_GRID = 16
"""Fewest grid points along the longest side."""
_RESOLUTION = Range(COARSEST_GRID, 512)
"""Coarser grids lose the object; finer ones take more than 2 GB for the grid alone."""


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Extraction of a mesh from a density."""

    resolution: Annotated[int, _RESOLUTION] = 128
    """Grid points along the longest side of the box around the object, 16 to 512."""
    level: Annotated[float | None, Range(0.0, 1e6, low_open=True)] = None
    """Density per scene unit at the surface; None means 3 for Gaussians and 25 for a field (docs/reports/mesh.md)."""
    keep_share: Annotated[float, SHARE] = 1.0
    """Separate pieces with at least this share of the largest one's volume are kept; 1 for the largest alone."""
    max_faces: Annotated[int | None, Range(100, 100_000_000)] = None
    """Triangles to which the mesh is reduced (quadric error); None for all that the grid gives."""
    texture: Annotated[int | None, Range(64, 8192)] = None
    """Side in pixels of a picture that is laid on a glb or an obj, baked from renders; None for colours per vertex."""
    unlit: bool = False
    """Mark a glb's material as unlit, so that the light in its colours is not lit again (KHR_materials_unlit)."""

    def __post_init__(self) -> None:
        check_settings(self)
