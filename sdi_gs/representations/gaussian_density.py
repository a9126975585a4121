"""Gaussians as a medium with a density and a colour at every point.

A ray through a splat's centre is absorbed by the splat's opacity, from any direction. A medium of the Gaussian's shape
does the same on average if its density at the centre is -ln(1 - opacity) / (sqrt(2 pi) * mean standard deviation); the
densities of all Gaussians add up. Unit: per scene unit, as in a NeRF.

Letters: N Gaussians, P points, C cells.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from gsplat.utils import normalized_quat_to_rotmat
from torch import Tensor

from sdi_gs.contracts import Box, DensityField
from sdi_gs.errors import UserError
from sdi_gs.rasterize.kernels.jit import kernel
from sdi_gs.representations.gaussians import SH_C0, Gaussians
from sdi_gs.settings.mesh import COARSEST_GRID

CUT_OFF = 4.0
"""Standard deviations beyond which a Gaussian's density is taken as 0; there it is 3e-4 of the centre's."""
MAX_OPACITY = 0.999
"""Upper limit of opacities, at which gsplat's rasteriser clamps them too."""
SURFACE_LEVEL = 3.0
"""Best density for a mesh's surface over toybox objects fitted to true views (docs/reports/mesh.md); fitted splats are
softer than a NeRF."""
BOX_QUANTILE = 0.002
"""Share of the Gaussians, by opacity times area, that the box may leave out on each side: floaters would cost
resolution."""
BOX_MARGIN = 0.1
"""Margin of the box on each side, as a share of its longest."""
MOST_VISITS = 2**35
"""Most pairs of a Gaussian and a grid point near it that the sums for a mesh may visit, which takes minutes."""
BAND_VISITS = 2**27
"""Pairs that are summed in one call, about a second; between calls Ctrl-C is heard."""
_MIN_SCALE = 1e-9
_POINTS_PER_CELL = 16


@dataclass(frozen=True, kw_only=True)
class GaussianDensity:
    """N Gaussians as a medium, on the host in float64."""

    means: np.ndarray  # [N, 3] scene units
    precisions: np.ndarray  # [N, 3, 3] inverse covariances
    reaches: np.ndarray  # [N, 3] half sides of the box around each Gaussian within ``CUT_OFF``
    widths: np.ndarray  # [N] mean standard deviation, the cube root of the product of all three
    peaks: np.ndarray  # [N] density at the centre, per scene unit
    rgb: np.ndarray  # [N, 3] in [0, 1]

    def density_of(
        self,
        points: Tensor,  # [P, 3] scene units
    ) -> Tensor:
        """Return the density [P] per scene unit, float32."""
        return self._sums(points)[:, 3].float()

    def albedo_of(
        self,
        points: Tensor,  # [P, 3] scene units
    ) -> Tensor:
        """Return the colour [P, 3] in [0, 1], float32: the Gaussians' mean by density; black where the density is 0."""
        sums = self._sums(points)
        return (sums[:, :3] / sums[:, 3:].clamp_min(1e-30)).float()

    def _sums(self, points: Tensor) -> Tensor:  # [P, 4] float64: density times colour, density
        """Sum over the Gaussians; points are sorted into cells, so that each Gaussian visits only those near it."""
        out = np.zeros((len(points), 4))
        if len(points):
            where = np.ascontiguousarray(points.detach().cpu().double().numpy())
            low, size, shape, cells = _cells(where)
            order = np.argsort(cells, kind="stable")
            starts = np.searchsorted(cells[order], np.arange(math.prod(shape) + 1))
            sums = np.zeros_like(out)
            sorted_points, done = where[order], 0
            while done < len(self.means):
                done, _ = _accumulate(
                    self.means, self.precisions, self.reaches, self.peaks, self.rgb,
                    sorted_points, starts, low, size, np.array(shape), sums, done, BAND_VISITS,
                )  # fmt: skip
            out[order] = sums
        return torch.from_numpy(out).to(points.device)


def density_field(gaussians: Gaussians, *, resolution: int | None = None) -> DensityField:
    """Return the medium of Gaussians within the box of those that are visible.

    ``resolution`` is the number of grid points along the box's longest side that the density will be evaluated at:
    the Gaussians are widened by half of their spacing. Raises UserError if no Gaussian is visible, and if the grid
    needs more than ``MOST_VISITS``.
    """
    box = visible_box(gaussians)
    if resolution is None:
        field = gaussian_density(gaussians)
    else:
        field, visits = _widened_for_grid(gaussians, box, resolution)
        if visits > MOST_VISITS:
            raise _too_many_visits(gaussians, box, resolution, visits)
    return DensityField(density_of=field.density_of, albedo_of=field.albedo_of, box=box, surface_level=SURFACE_LEVEL)


def gaussian_density(gaussians: Gaussians, *, blur: float = 0.0) -> GaussianDensity:
    """Return the medium of Gaussians, coloured by their constant harmonic.

    Gaussians that are not finite are left out. ``blur`` is a standard deviation in scene units by which all others are
    widened at equal mass: half the spacing of a grid keeps flat Gaussians from falling between its points.
    """
    params = {name: value.detach().cpu().double() for name, value in gaussians.params.items()}
    finite = torch.stack([value.flatten(1).isfinite().all(dim=1) for value in params.values() if value.dim() > 1])
    kept = finite.all(dim=0) & params["opacities"].isfinite()
    params = {name: value[kept] for name, value in params.items()}
    scales = params["scales"].exp().clamp_min(_MIN_SCALE)
    wide = (scales.square() + blur**2).sqrt()
    opacity = torch.sigmoid(params["opacities"]).clamp_max(MAX_OPACITY)
    mean_scale = scales.log().mean(dim=-1).exp()
    peaks = -torch.log1p(-opacity) / (math.sqrt(2.0 * math.pi) * mean_scale) * (scales / wide).prod(dim=-1)
    rotations = normalized_quat_to_rotmat(torch.nn.functional.normalize(params["quats"], dim=-1))
    half = rotations / wide[:, None, :]
    variances = (rotations * wide[:, None, :]).square().sum(dim=-1)
    return GaussianDensity(
        means=np.ascontiguousarray(params["means"].numpy()),
        precisions=np.ascontiguousarray((half @ half.mT).numpy()),
        reaches=np.ascontiguousarray((CUT_OFF * variances.sqrt()).numpy()),
        widths=np.ascontiguousarray(wide.log().mean(dim=-1).exp().numpy()),
        peaks=np.ascontiguousarray(peaks.numpy()),
        rgb=np.ascontiguousarray((0.5 + SH_C0 * params["sh0"][:, 0]).clamp(0.0, 1.0).numpy()),
    )


def visible_box(gaussians: Gaussians) -> Box:
    """Return the box of the Gaussians without their farthest floaters.

    Raises UserError if no Gaussian is visible.
    """
    field = gaussian_density(gaussians)
    reach = field.reaches * (2.0 / CUT_OFF)
    # By the definition of the peak this is -ln(1 - opacity) times the mean width squared: what a picture shows of it.
    shown = field.peaks * field.widths**3
    if not shown.sum() > 0.0:
        raise UserError(f"cannot make a mesh: none of the {len(gaussians)} Gaussians can be seen; train for longer")
    low = np.array([_quantile(field.means[:, axis] - reach[:, axis], shown, BOX_QUANTILE) for axis in range(3)])
    high = np.array([-_quantile(-field.means[:, axis] - reach[:, axis], shown, BOX_QUANTILE) for axis in range(3)])
    margin = BOX_MARGIN * float((high - low).max())
    return Box(low=tuple((low - margin).tolist()), high=tuple((high + margin).tolist()))


def grid_visits(field: GaussianDensity, box: Box, resolution: int) -> float:
    """Return an upper bound on the pairs of a Gaussian and a grid point that the sums over a box's grid visit."""
    spacing = box.longest_side / (resolution - 1)
    # Whole cells are visited, to both sides of a Gaussian's reach.
    reaches = field.reaches + spacing * _POINTS_PER_CELL ** (1.0 / 3.0)
    first = np.maximum(field.means - reaches, np.array(box.low) - spacing)
    last = np.minimum(field.means + reaches, np.array(box.high) + spacing)
    return float(np.where(last >= first, np.floor((last - first) / spacing) + 1.0, 0.0).prod(axis=1).sum())


def _widened_for_grid(gaussians: Gaussians, box: Box, resolution: int) -> tuple[GaussianDensity, float]:
    """Return the medium for a grid of so many points along the longest side, and the visits of its sums."""
    field = gaussian_density(gaussians, blur=0.5 * box.longest_side / (resolution - 1))
    return field, grid_visits(field, box, resolution)


def _too_many_visits(gaussians: Gaussians, box: Box, resolution: int, visits: float) -> UserError:
    """Return the refusal of sums that would take too long; it names a grid that is taken, where there is one."""
    fewer = int(resolution * (MOST_VISITS / visits) ** (1.0 / 3.0))
    while fewer >= COARSEST_GRID and _widened_for_grid(gaussians, box, fewer)[1] > MOST_VISITS:
        fewer = int(0.9 * fewer)
    way = f"take --mesh.resolution {fewer}, or " if fewer >= COARSEST_GRID else "take "
    return UserError(
        f"cannot make a mesh: {len(gaussians)} Gaussians of such a size on a grid of {resolution} points a side are "
        f"{visits:.2g} sums, more than {MOST_VISITS:.2g}: {way}fewer or smaller Gaussians"
    )


def _quantile(
    values: np.ndarray,  # [N]
    weights: np.ndarray,  # [N]
    share: float,
) -> float:
    """Return the value below which ``share`` of the weight lies."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(reached, share * reached[-1])]])


def _cells(
    points: np.ndarray,  # [P, 3]
) -> tuple[np.ndarray, float, tuple[int, ...], np.ndarray]:
    """Return cells over the points' box: its corner [3], their side, their numbers, and the cell of each point [P]."""
    low, high = points.min(axis=0), points.max(axis=0)
    sides = np.maximum(high - low, 1e-9)
    # Cubes of about ``_POINTS_PER_CELL`` points each; a plane of points has one layer of cells.
    size = float((sides.prod() * _POINTS_PER_CELL / len(points)) ** (1.0 / 3.0))
    size = max(size, float(sides.max()) * _POINTS_PER_CELL / len(points), float(sides.max()) / 512.0)
    shape = tuple(int(side / size) + 1 for side in sides)
    places = ((points - low) / size).astype(np.int64)
    return low, size, shape, (places[:, 0] * shape[1] + places[:, 1]) * shape[2] + places[:, 2]


@kernel
def _accumulate(
    means,  # [N, 3]
    precisions,  # [N, 3, 3]
    reaches,  # [N, 3]
    peaks,  # [N]
    rgb,  # [N, 3]
    points,  # [P, 3] sorted by cell
    starts,  # [C + 1] first point of each cell
    low,  # [3]
    size,
    shape,  # [3]
    sums,  # [P, 4] added to
    done,
    most,
):
    """Add the Gaussians from ``done`` on to the points within their cut-off, until ``most`` points were visited.

    Returns the first Gaussian that was not added, and the number of visits: fewer than ``most`` + P. The order is
    fixed, so sums are repeatable.
    """
    begin, end = np.empty(3, np.int64), np.empty(3, np.int64)
    visits = 0
    for g in range(done, len(means)):
        if visits >= most:
            return g, visits
        empty = False
        for axis in range(3):
            # Clamped as a float: the cell of a far Gaussian may exceed the integers.
            first = math.floor((means[g, axis] - reaches[g, axis] - low[axis]) / size)
            last = math.floor((means[g, axis] + reaches[g, axis] - low[axis]) / size)
            begin[axis] = int(min(max(first, 0.0), 1.0 * shape[axis]))
            end[axis] = int(min(max(last + 1.0, 0.0), 1.0 * shape[axis]))
            empty |= begin[axis] >= end[axis]
        if empty:
            continue
        p = precisions[g]
        for i in range(begin[0], end[0]):
            for j in range(begin[1], end[1]):
                # The cells of a row are neighbours, so their points are one range.
                row = (i * shape[1] + j) * shape[2]
                visits += starts[row + end[2]] - starts[row + begin[2]]
                for k in range(starts[row + begin[2]], starts[row + end[2]]):
                    x, y, z = points[k, 0] - means[g, 0], points[k, 1] - means[g, 1], points[k, 2] - means[g, 2]
                    squared = p[0, 0] * x * x + p[1, 1] * y * y + p[2, 2] * z * z
                    squared += 2.0 * (p[0, 1] * x * y + p[0, 2] * x * z + p[1, 2] * y * z)
                    if squared <= CUT_OFF * CUT_OFF:
                        density = peaks[g] * math.exp(-0.5 * squared)
                        sums[k, 0] += density * rgb[g, 0]
                        sums[k, 1] += density * rgb[g, 1]
                        sums[k, 2] += density * rgb[g, 2]
                        sums[k, 3] += density
    return len(means), visits
