"""Options of exported files, the same for every format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from sdi_gs.settings.bounds import Range, check_settings
from sdi_gs.settings.frames import Frame
from sdi_gs.settings.mesh import MeshConfig

ShDegree = Literal["keep", "0", "1", "2", "3-pad"]
"""Harmonics of splats in a file: as they are, up to a degree, or filled up with zeros to degree 3."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """How a scene becomes a file."""

    frame: Frame = "viewer"
    """Axes of the file: those that its viewers expect (RDF for most splats, y up for meshes and glTF), of training (z
    up, front along x), or y up with the front along z."""
    sh_degree: ShDegree = "keep"
    """Colours that change with the direction of view: keep them, cut them to degree 0, 1 or 2, or fill up to degree 3
    with zeros (3-pad), which some Unity importers need."""
    scale: Annotated[float | None, Range(1e-6, 1e6)] = None
    """Height of the object in the file, metres; scene units as they are if not given."""
    max_splats: Annotated[int | None, Range(10, 10_000_000)] = None
    """Most splats in the file: those that add least to views from all around are left out. Of a field, as many as are
    sampled on its surface; 6000 if not given."""
    drop_below: Annotated[float | None, Range(0.0, 1.0, low_open=True, high_open=True)] = None
    """Opacity below which splats are left out."""
    fit_steps: Annotated[int, Range(0, 100_000)] = 200
    """Steps by which the splats sampled from a field are fitted to its renders; 0 for none."""
    mesh: MeshConfig = MeshConfig()

    def __post_init__(self) -> None:
        check_settings(self)


AS_IT_IS = ExportOptions()
"""Every option as it is when none is given."""
