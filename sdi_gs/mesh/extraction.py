"""Extraction of a coloured triangle mesh from a density field.

World frame: z up, the object's front along +x.

Letters: P points, V vertices, F faces, X Y Z grid points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sdi_gs.contracts import Box, DensityField, Representation
from sdi_gs.errors import UserError
from sdi_gs.mesh.surface import flaws, level_surface, vertex_normals, with_fewer_faces, without_small_pieces
from sdi_gs.settings.mesh import MeshConfig

POINTS_AT_ONCE = 2**18
"""Grid points evaluated in one call."""


@dataclass(frozen=True, kw_only=True)
class Texture:
    """A square picture that is laid on a mesh."""

    uv: np.ndarray  # [V, 2] float64 in [0, 1], to the right and down from the picture's upper left corner
    picture: np.ndarray  # [S, S, 3] uint8, displayed colour


@dataclass(frozen=True, kw_only=True)
class TriangleMesh:
    """A coloured surface in the training world; faces are counter-clockwise seen from outside."""

    vertices: np.ndarray  # [V, 3] float64, scene units
    faces: np.ndarray  # [F, 3] int64
    normals: np.ndarray  # [V, 3] float64, unit, outwards
    rgb: np.ndarray  # [V, 3] float64, displayed colour in [0, 1]
    texture: Texture | None = None


@dataclass(frozen=True, kw_only=True)
class MeshReport:
    """Size and flaws of an extracted mesh."""

    level: float
    vertices: int
    faces: int
    left_out: int
    """Number of separate pieces and of walls of closed hollows that were removed."""
    flaws: tuple[str, ...]
    """Reasons why the mesh is not watertight; empty if it is."""
    cut_off: bool
    """Whether the box cuts the object, which closes it with a flat face."""

    @property
    def watertight(self) -> bool:
        """Whether every edge joins two faces of consistent orientation."""
        return not self.flaws

    def line(self) -> str:
        """Return the report as one line of text."""
        closed = "watertight" if self.watertight else f"not watertight: {', '.join(self.flaws)}"
        parts = [f"{self.vertices} vertices, {self.faces} triangles at density {self.level:g}, {closed}"]
        if self.left_out:
            parts.append(f"{self.left_out} smaller pieces left out")
        if self.cut_off:
            parts.append("closed flat where the box cuts the object off")
        return "; ".join(parts)


def mesh_of_scene(representation: Representation, config: MeshConfig) -> tuple[TriangleMesh, MeshReport]:
    """Extract the surface of anything that has a density (errors as in ``mesh_of_field``).

    Raises UserError for a representation without a density.
    """
    field = representation.density(resolution=config.resolution)
    if field is None:
        raise UserError(f"cannot make a mesh: {representation.describe()} has no density; render it instead")
    return mesh_of_field(field, config)


def mesh_of_field(field: DensityField, config: MeshConfig) -> tuple[TriangleMesh, MeshReport]:
    """Extract the surface where a density passes the level, coloured by the albedo at its vertices.

    Raises UserError if the density is not finite, 0 everywhere, or nowhere or everywhere at the level.
    """
    level = config.level if config.level is not None else field.surface_level
    axes, spacing = _grid_axes(field.box, config.resolution)
    values = _values_on_grid(field.density_of, axes, field.device)
    _require_level(values, level)
    low = np.array([axis[0].item() for axis in axes])
    vertices, faces = level_surface(values, level, low=low, spacing=spacing)
    vertices, faces, left_out = without_small_pieces(vertices, faces, config.keep_share)
    if config.max_faces is not None:
        vertices, faces = with_fewer_faces(vertices, faces, config.max_faces)
    high = np.array([axis[-1].item() for axis in axes])
    report = MeshReport(
        level=level,
        vertices=len(vertices),
        faces=len(faces),
        left_out=left_out,
        flaws=tuple(flaws(faces)),
        # The surface leaves the grid only there, by the part of a cell within which it is closed.
        cut_off=bool((vertices < low).any() or (vertices > high).any()),
    )
    mesh = TriangleMesh(
        vertices=vertices,
        faces=faces,
        normals=vertex_normals(vertices, faces),
        rgb=_evaluated(field.albedo_of, torch.from_numpy(vertices).float(), field.device).clip(0.0, 1.0),
    )
    return mesh, report


def _grid_axes(box: Box, resolution: int) -> tuple[list[Tensor], float]:
    """Return the grid points' coordinates along each axis, float64, and their spacing, the same on all axes."""
    spacing = box.longest_side / (resolution - 1)
    axes = []
    for low, high in zip(box.low, box.high, strict=True):
        # A hair less, so that rounding does not add a point to a side of whole spacings.
        count = int(np.ceil((high - low) / spacing - 1e-6)) + 1
        middle = 0.5 * (low + high)
        axes.append(middle + spacing * (torch.arange(count, dtype=torch.float64) - 0.5 * (count - 1)))
    return axes, spacing


def _values_on_grid(
    density_of: Callable[[Tensor], Tensor],
    axes: list[Tensor],
    device: torch.device,
) -> np.ndarray:
    """Evaluate densities [X, Y, Z] float32 slab by slab."""
    x, y, z = (axis.float() for axis in axes)
    values = np.empty((len(x), len(y), len(z)), np.float32)
    rows = max(POINTS_AT_ONCE // (len(y) * len(z)), 1)
    for first in range(0, len(x), rows):
        slab = torch.stack(torch.meshgrid(x[first : first + rows], y, z, indexing="ij"), dim=-1)
        density = _evaluated(density_of, slab.reshape(-1, 3), device)
        values[first : first + rows] = density.reshape(slab.shape[:3])
    return values


@torch.no_grad()
def _evaluated(function: Callable[[Tensor], Tensor], points: Tensor, device: torch.device) -> np.ndarray:
    """Evaluate a function at points [P, 3] in parts; float64 on the host."""
    parts = [function(part.to(device)).cpu().double().numpy() for part in points.split(POINTS_AT_ONCE)]
    return np.concatenate(parts)


def _require_level(
    values: np.ndarray,  # [X, Y, Z]
    level: float,
) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        raise UserError(
            f"cannot make a mesh: the density is not finite at {values.size - np.count_nonzero(finite)} of "
            f"{values.size} grid points; take an earlier checkpoint"
        )
    least, most = float(values.min()), float(values.max())
    if most <= 0.0:
        raise UserError("cannot make a mesh: the field is empty, its density is 0 everywhere; train for longer")
    if most <= level:
        raise UserError(
            f"cannot make a mesh: level {level:g} is never reached, the density is {most:.3g} at most; "
            f"take a lower one, such as {0.3 * most:.2g}"
        )
    if least >= level:
        raise UserError(
            f"cannot make a mesh: level {level:g} is exceeded everywhere, the density is {least:.3g} at least; "
            f"take a higher one, below {most:.3g}"
        )
