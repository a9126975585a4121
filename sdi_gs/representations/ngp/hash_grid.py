"""The multi-resolution hash encoding of Instant NGP (arXiv 2201.05989) and its derivative by position.

Both are linear in the table: the gradient of a loss on normals needs no second derivative. Layout, hash and half-cell
offset are those of tiny-cuda-nn (``grid.h``, ``common_device.h``): a level has ``ceil(s) + 1`` vertices along a side,
s = base * growth^level - 1, stored densely where they fit the table and hashed otherwise; a point x in [0, 1] lies at
s x + 1/2.

Letters: P points, L levels, E entries of all levels.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sdi_gs.settings.ngp import HashGridConfig

FEATURES = 2
"""Features per entry."""
PRIMES = (1, 2654435761, 805459861)
"""Factors of the coordinates in the hash."""


@dataclass(frozen=True, kw_only=True)
class GridLayout:
    """Layout of the levels' entries in the table."""

    config: HashGridConfig
    """The settings that it follows from."""
    scales: tuple[float, ...]
    """Cells along a side of the unit cube, L of them, float32 values."""
    resolutions: tuple[int, ...]
    """Vertices along a side."""
    offsets: tuple[int, ...]
    """First entry of each level, and E."""
    hashed: tuple[bool, ...]
    """Whether a level has more vertices than entries."""

    @property
    def num_levels(self) -> int:
        """L."""
        return len(self.scales)

    @property
    def num_entries(self) -> int:
        """E."""
        return self.offsets[-1]


@functools.cache
def grid_layout(config: HashGridConfig) -> GridLayout:
    """Return the layout of a config."""
    table_size = 2**config.log2_table_size
    scales, resolutions, offsets, hashed = [], [], [0], []
    for level in range(config.num_levels):
        scale = float(np.float32(config.base_resolution * config.growth**level - 1.0))
        resolution = math.ceil(scale) + 1
        # Dense levels end on a multiple of eight entries.
        size = min(-(-(resolution**3) // 8) * 8, table_size)
        scales.append(scale)
        resolutions.append(resolution)
        offsets.append(offsets[-1] + size)
        hashed.append(resolution**3 > size)
    return GridLayout(
        config=config,
        scales=tuple(scales),
        resolutions=tuple(resolutions),
        offsets=tuple(offsets),
        hashed=tuple(hashed),
    )


def encode(
    points: Tensor,  # [P, 3] in [0, 1]
    table: Tensor,  # [E, 2]
    layout: GridLayout,
    *,
    num_levels: int,
    with_jacobian: bool = False,
) -> tuple[Tensor, Tensor | None]:  # [P, 2 L], [P, 3, 2 L]
    """Compute features of the first ``num_levels`` levels, 0 for the others, and their derivatives by the coordinates.

    The reference: torch operations on any device and in any precision, differentiable by points and table.
    """
    features, jacobian = [], []
    for level in range(num_levels):
        entries, factors = corners(points, layout, level, with_slopes=with_jacobian)
        value, *slopes = (factors[..., None] * table[entries]).sum(dim=1)
        features.append(value)
        if with_jacobian:
            jacobian.append(torch.stack(slopes, dim=1))
    unused = FEATURES * (layout.num_levels - num_levels)
    features.append(table.new_zeros(len(points), unused))
    jacobian.append(table.new_zeros(len(points), 3, unused))
    return torch.cat(features, dim=-1), torch.cat(jacobian, dim=-1) if with_jacobian else None


def corners(
    points: Tensor,  # [P, 3] in [0, 1]
    layout: GridLayout,
    level: int,
    *,
    with_slopes: bool,
) -> tuple[Tensor, Tensor]:  # [8, P] int64, [1 or 4, 8, P]
    """Return the table rows at the corners of the points' cells, and the corners' interpolation factors.

    The first factor is that of the level's value; ``with_slopes`` adds those of its derivatives by x, y and z.
    """
    scale = layout.scales[level]
    position = points.T * scale + 0.5
    cell = position.detach().floor()
    high = position - cell
    vertices = torch.stack([cell, cell + 1.0]).long()
    # Low and high side of each axis, the axes spread over the dimensions of a [2, 2, 2, P] cell.
    sides = [torch.stack([1.0 - high[axis], high[axis]]) for axis in range(3)]
    x, y, z = (_spread(vertices[:, axis], axis) for axis in range(3))
    by_x, by_y, by_z = (_spread(side, axis) for axis, side in enumerate(sides))
    factors = [by_x * by_y * by_z]
    if with_slopes:
        for axis, others in enumerate((by_y * by_z, by_x * by_z, by_x * by_y)):
            factors.append(torch.cat([-scale * others, scale * others], dim=axis))
    entries = _entries([x, y, z], layout, level)
    return entries.flatten(0, 2), torch.stack(factors).flatten(1, 3)


def _spread(
    sides: Tensor,  # [2, P]
    axis: int,
) -> Tensor:  # [2, 1, 1, P], [1, 2, 1, P] or [1, 1, 2, P]
    shape = [1, 1, 1, -1]
    shape[axis] = 2
    return sides.reshape(shape)


def _entries(
    vertex: list[Tensor],  # x, y and z, int64, of shapes that broadcast
    layout: GridLayout,
    level: int,
) -> Tensor:  # of the shape that x, y and z have together
    """Return table rows; the offset of half a cell lets the last vertices of a dense level wrap around."""
    size = layout.offsets[level + 1] - layout.offsets[level]
    x, y, z = vertex
    if layout.hashed[level]:
        place = x * PRIMES[0] ^ y * PRIMES[1] ^ z * PRIMES[2]
    else:
        resolution = layout.resolutions[level]
        place = x + resolution * (y + resolution * z)
    return layout.offsets[level] + place % size


@functools.cache
def layout_arrays(layout: GridLayout, num_levels: int) -> tuple[np.ndarray, ...]:
    """Return the first levels' scales, resolutions, offsets and hash flags."""
    return (
        np.array(layout.scales[:num_levels], np.float32),
        np.array(layout.resolutions[:num_levels], np.int64),
        np.array(layout.offsets[: num_levels + 1], np.int64),
        np.array(layout.hashed[:num_levels], np.bool_),
    )
