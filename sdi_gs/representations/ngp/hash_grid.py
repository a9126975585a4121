"""The multi-resolution hash encoding of Instant NGP (arXiv 2201.05989) and its derivative by position.

Both are linear in the table, so one backward pass by the table serves colours, densities and normals alike: the
gradient of a loss on normals needs no second derivative. Layout, hash and half-cell offset are those of tiny-cuda-nn
(``grid.h``, ``common_device.h``): a level has ``ceil(s) + 1`` vertices along a side, s = base * growth^level - 1,
stored densely where they fit the table and hashed otherwise; a point x in [0, 1] lies at s x + 1/2.

Letters: P points, L levels, E entries of all levels.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from typing import Any, Literal, assert_never

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sdi_gs.representations.ngp.config import HashGridConfig

FEATURES = 2
"""Features of an entry."""
PRIMES = (1, 2654435761, 805459861)
"""Factors of the coordinates in the hash."""

_SMALLEST_POINTS = 2048

EncodingBackend = Literal["numba", "torch"]


@dataclass(frozen=True, kw_only=True)
class GridLayout:
    """Where each level's entries lie in the table."""

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
    """The layout that a config asks for."""
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
        scales=tuple(scales), resolutions=tuple(resolutions), offsets=tuple(offsets), hashed=tuple(hashed)
    )


def encoding_backend(points: Tensor, table: Tensor) -> EncodingBackend:
    """numba for float32 on the CPU, unless positions want a gradient, which only the torch code gives."""
    on_cpu = points.device.type == "cpu" and points.dtype == table.dtype == torch.float32
    return "numba" if on_cpu and not points.requires_grad else "torch"


def encode(
    points: Tensor,  # [P, 3] in [0, 1]
    table: Tensor,  # [E, 2]
    layout: GridLayout,
    *,
    num_levels: int,
    backend: EncodingBackend | None = None,
) -> Tensor:  # [P, 2 L]
    """Features of the first ``num_levels`` levels; 0 for the others."""
    match backend or encoding_backend(points, table):
        case "numba":
            return _Encode.apply(points, table, layout, num_levels, False)[0]
        case "torch":
            return encode_torch(points, table, layout, num_levels=num_levels)[0]
        case other:
            assert_never(other)


def encode_with_jacobian(
    points: Tensor,  # [P, 3] in [0, 1]
    table: Tensor,  # [E, 2]
    layout: GridLayout,
    *,
    num_levels: int,
    backend: EncodingBackend | None = None,
) -> tuple[Tensor, Tensor]:  # [P, 2 L], [P, 3, 2 L]
    """Features, and their derivatives by the point's coordinates; both differentiable by the table."""
    match backend or encoding_backend(points, table):
        case "numba":
            return _Encode.apply(points, table, layout, num_levels, True)
        case "torch":
            return encode_torch(points, table, layout, num_levels=num_levels)
        case other:
            assert_never(other)


def encode_torch(
    points: Tensor,  # [P, 3] in [0, 1]
    table: Tensor,  # [E, 2]
    layout: GridLayout,
    *,
    num_levels: int,
) -> tuple[Tensor, Tensor]:  # [P, 2 L], [P, 3, 2 L]
    """The reference: torch operations alone, on any device and in any precision."""
    features, jacobian = [], []
    for level in range(num_levels):
        scale = layout.scales[level]
        position = points * scale + 0.5
        cell = position.detach().floor()
        high = position - cell
        vertex = cell.long()
        value = table.new_zeros(len(points), FEATURES)
        slopes = [torch.zeros_like(value) for _ in range(3)]
        for corner in itertools.product((0, 1), repeat=3):
            entries = table[_entries(vertex + torch.tensor(corner, device=vertex.device), layout, level)]
            weights = [high[:, axis] if side else 1.0 - high[:, axis] for axis, side in enumerate(corner)]
            value = value + (weights[0] * weights[1] * weights[2])[:, None] * entries
            for axis, side in enumerate(corner):
                others = weights[(axis + 1) % 3] * weights[(axis + 2) % 3]
                slopes[axis] = slopes[axis] + ((scale if side else -scale) * others)[:, None] * entries
        features.append(value)
        jacobian.append(torch.stack(slopes, dim=1))
    unused = FEATURES * (layout.num_levels - num_levels)
    features.append(table.new_zeros(len(points), unused))
    jacobian.append(table.new_zeros(len(points), 3, unused))
    return torch.cat(features, dim=-1), torch.cat(jacobian, dim=-1)


def _entries(
    vertex: Tensor,  # [P, 3] int64
    layout: GridLayout,
    level: int,
) -> Tensor:  # [P]
    """Rows of the table; the offset of half a cell lets the last vertices of a dense level wrap around."""
    size = layout.offsets[level + 1] - layout.offsets[level]
    x, y, z = vertex.unbind(-1)
    if layout.hashed[level]:
        place = x * PRIMES[0] ^ y * PRIMES[1] ^ z * PRIMES[2]
    else:
        resolution = layout.resolutions[level]
        place = x + resolution * (y + resolution * z)
    return layout.offsets[level] + place % size


@functools.cache
def _layout_arrays(layout: GridLayout, num_levels: int) -> tuple[np.ndarray, ...]:
    """The first levels' scales, resolutions, offsets and hash flags."""
    return (
        np.array(layout.scales[:num_levels], np.float32),
        np.array(layout.resolutions[:num_levels], np.int64),
        np.array(layout.offsets[: num_levels + 1], np.int64),
        np.array(layout.hashed[:num_levels], np.bool_),
    )


class _Encode(torch.autograd.Function):
    """points, table -> features and jacobian (of no rows where it is not asked for)."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        points: Tensor,  # [P, 3]
        table: Tensor,  # [E, 2]
        layout: GridLayout,
        num_levels: int,
        with_jacobian: bool,
    ) -> tuple[Tensor, Tensor]:
        from sdi_gs.rasterize.threads import run_on_ranges
        from sdi_gs.representations.ngp.kernels import encoding

        count, width = len(points), FEATURES * layout.num_levels
        # Levels that are not in use are 0.
        new = torch.empty if num_levels == layout.num_levels else torch.zeros
        features = new((count, width))
        jacobian = new((count, 3, width) if with_jacobian else (0, 3, width))
        points = points.detach().contiguous()
        run_on_ranges(
            encoding.encode,
            count,
            _SMALLEST_POINTS,
            points.numpy(),
            table.detach().contiguous().numpy(),
            *_layout_arrays(layout, num_levels),
            features.numpy(),
            jacobian.numpy(),
        )
        ctx.save_for_backward(points)
        ctx.layout, ctx.num_levels, ctx.with_jacobian = layout, num_levels, with_jacobian
        ctx.set_materialize_grads(False)
        return features, jacobian

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_features: Tensor | None, grad_jacobian: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        from sdi_gs.rasterize.threads import run_interleaved
        from sdi_gs.representations.ngp.kernels import encoding

        (points,) = ctx.saved_tensors
        layout: GridLayout = ctx.layout
        width = FEATURES * layout.num_levels
        grad_table = torch.zeros((layout.num_entries, FEATURES))
        if grad_features is None and grad_jacobian is None:
            return None, grad_table, None, None, None
        if grad_features is None:
            grad_features = torch.zeros((len(points), width))
        if grad_jacobian is None or not ctx.with_jacobian:
            grad_jacobian = torch.empty((0, 3, width))
        # One thread per level: entries are summed in the order of the points, whatever the number of threads.
        run_interleaved(
            encoding.encode_backward,
            ctx.num_levels,
            ctx.num_levels * len(points),
            _SMALLEST_POINTS,
            points.numpy(),
            *_layout_arrays(layout, ctx.num_levels),
            grad_features.contiguous().numpy(),
            grad_jacobian.contiguous().numpy(),
            grad_table.numpy(),
        )
        return None, grad_table, None, None, None
