"""A triangle mesh of what has a density and a colour at every point: a NeRF, or a cloud of Gaussians.

World frame: z up, the object's front along +x.

Letters: P points, V vertices, F faces, X Y Z grid points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sdi_gs.errors import UserError
from sdi_gs.mesh.surface import flaws, level_surface, vertex_normals, with_fewer_faces, without_small_pieces
from sdi_gs.representations.gaussian_density import CUT_OFF, gaussian_density
from sdi_gs.representations.gaussians import Gaussians
from sdi_gs.representations.ngp.ngp import Ngp
from sdi_gs.settings.mesh import MeshConfig

GAUSSIANS_LEVEL = 3.0
"""Best over toybox objects fitted to true views (docs/reports/mesh.md); fitted splats are softer than a NeRF."""
FIELD_LEVEL = 25.0
"""threestudio's isosurface threshold for densities of NeRFs."""

BOX_QUANTILE = 0.002
"""Share of a cloud, by opacity times area, that the box may leave out on each side: floaters would cost resolution."""
BOX_MARGIN = 0.1
"""What the box has over on each side, as a share of its longest."""
POINTS_AT_ONCE = 2**18
"""Points of the grid evaluated in one call."""

DensityOf = Callable[[Tensor], Tensor]  # [P, 3] scene units -> [P] per scene unit, at least 0
AlbedoOf = Callable[[Tensor], Tensor]  # [P, 3] scene units -> [P, 3] in [0, 1]


@dataclass(frozen=True, kw_only=True)
class Box:
    """A box along the axes, scene units."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]

    def __post_init__(self) -> None:
        if not all(low < high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError(f"a box needs low < high on every axis, got {self.low} and {self.high}")


def cube(half_side: float) -> Box:
    """The cube around the origin."""
    return Box(low=(-half_side, -half_side, -half_side), high=(half_side, half_side, half_side))


@dataclass(frozen=True, kw_only=True)
class TriangleMesh:
    """A coloured surface in the training world; faces are counter-clockwise seen from outside."""

    vertices: np.ndarray  # [V, 3] float64, scene units
    faces: np.ndarray  # [F, 3] int64
    normals: np.ndarray  # [V, 3] float64, unit, outwards
    rgb: np.ndarray  # [V, 3] float64, displayed colour in [0, 1]


@dataclass(frozen=True, kw_only=True)
class MeshReport:
    """What became of a density that was made into a mesh."""

    level: float
    vertices: int
    faces: int
    left_out: int
    """Separate pieces and walls of closed hollows that are not in the mesh."""
    flaws: tuple[str, ...]
    """Why the mesh is not watertight; empty where it is."""
    cut_off: bool
    """Whether the box cuts the object off, which closes it with a flat face."""

    @property
    def watertight(self) -> bool:
        """Whether every edge joins two faces that look the same way."""
        return not self.flaws

    def line(self) -> str:
        """The report for people."""
        closed = "watertight" if self.watertight else f"not watertight: {', '.join(self.flaws)}"
        parts = [f"{self.vertices} vertices, {self.faces} triangles at density {self.level:g}, {closed}"]
        if self.left_out:
            parts.append(f"{self.left_out} smaller pieces left out")
        if self.cut_off:
            parts.append("closed flat where the box cuts the object off")
        return "; ".join(parts)


def mesh_of_scene(representation: Gaussians | Ngp, config: MeshConfig) -> tuple[TriangleMesh, MeshReport]:
    """The surface of a cloud or of a field (errors as ``mesh_of_field``)."""
    if isinstance(representation, Gaussians):
        return mesh_of_gaussians(representation, config)
    with torch.no_grad():
        return mesh_of_field(
            representation.density_of,
            representation.albedo_of,
            cube(representation.config.radius),
            config,
            device=representation.device,
        )


def mesh_of_gaussians(gaussians: Gaussians, config: MeshConfig) -> tuple[TriangleMesh, MeshReport]:
    """The surface where the Gaussians' summed density passes the level (errors as ``mesh_of_field``).

    The box is the cloud's own, but for the outermost ``BOX_QUANTILE`` of it.
    """
    box = gaussians_box(gaussians)
    blur = 0.5 * _spacing(box, config.resolution)
    field = gaussian_density(gaussians, blur=blur)
    return mesh_of_field(field.density_of, field.albedo_of, box, config, default_level=GAUSSIANS_LEVEL)


def mesh_of_field(
    density_of: DensityOf,
    albedo_of: AlbedoOf,
    box: Box,
    config: MeshConfig,
    *,
    default_level: float = FIELD_LEVEL,
    device: torch.device | str = "cpu",
) -> tuple[TriangleMesh, MeshReport]:
    """The surface where a density passes the level, coloured by the albedo at its vertices.

    Raises UserError where the density is not finite, 0 everywhere, or nowhere or everywhere at the level.
    """
    level = config.level if config.level is not None else default_level
    axes, spacing = _grid_axes(box, config.resolution)
    values = _values_on_grid(density_of, axes, torch.device(device))
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
        rgb=_evaluated(albedo_of, torch.from_numpy(vertices).float(), torch.device(device)).clip(0.0, 1.0),
    )
    return mesh, report


def gaussians_box(gaussians: Gaussians) -> Box:
    """The box of a cloud without its farthest floaters; UserError where it holds nothing that can be seen."""
    field = gaussian_density(gaussians)
    reach = field.reaches * (2.0 / CUT_OFF)
    # By the definition of the peak this is -ln(1 - opacity) times the mean width squared: what a picture shows of it.
    width = np.linalg.det(field.precisions) ** (-1.0 / 6.0) if len(field.means) else np.zeros(0)
    shown = field.peaks * width**3
    if not shown.sum() > 0.0:
        raise UserError(f"cannot make a mesh: none of the {len(gaussians)} Gaussians can be seen; train for longer")
    low = np.array([_quantile(field.means[:, axis] - reach[:, axis], shown, BOX_QUANTILE) for axis in range(3)])
    high = np.array([-_quantile(-field.means[:, axis] - reach[:, axis], shown, BOX_QUANTILE) for axis in range(3)])
    margin = BOX_MARGIN * float((high - low).max())
    return Box(low=tuple((low - margin).tolist()), high=tuple((high + margin).tolist()))


def _quantile(
    values: np.ndarray,  # [N]
    weights: np.ndarray,  # [N]
    share: float,
) -> float:
    """The value below which ``share`` of the weight lies."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(reached, share * reached[-1])]])


def _spacing(box: Box, resolution: int) -> float:
    return max(high - low for low, high in zip(box.low, box.high, strict=True)) / (resolution - 1)


def _grid_axes(box: Box, resolution: int) -> tuple[list[Tensor], float]:
    """The coordinates of the grid points along each axis, float64, and the spacing, which is the same on all."""
    spacing = _spacing(box, resolution)
    axes = []
    for low, high in zip(box.low, box.high, strict=True):
        # A hair less, so that rounding does not add a point to a side of whole spacings.
        count = int(np.ceil((high - low) / spacing - 1e-6)) + 1
        middle = 0.5 * (low + high)
        axes.append(middle + spacing * (torch.arange(count, dtype=torch.float64) - 0.5 * (count - 1)))
    return axes, spacing


def _values_on_grid(density_of: DensityOf, axes: list[Tensor], device: torch.device) -> np.ndarray:
    """Densities [X, Y, Z] float32, asked for slab by slab."""
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
    """A field's values at points [P, 3], in parts, float64 on the host."""
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
