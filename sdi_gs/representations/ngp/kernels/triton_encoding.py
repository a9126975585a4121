"""The hash encoding's kernels in Triton: features, slopes along directions, and the backward pass of both together.

Imported only where they run, on CUDA; ``TRITON_INTERPRET=1`` runs them on a CPU, as the tests do. Sums over the points
of one entry are atomic, in no fixed order; everything else has the same bits in every run.

Letters: P points, L levels in use, E entries.
"""

# ruff: noqa: N803, N806
# pyright: reportPossiblyUnboundVariable=false
from __future__ import annotations

import triton
import triton.language as tl

POINTS = 256
"""Points of a program."""


@triton.jit
def _cell(points, at, inside, scale):
    """Return the corner below each point along the three axes, and the distances from it in cells."""
    x = tl.load(points + 3 * at, mask=inside, other=0.0) * scale + 0.5
    y = tl.load(points + 3 * at + 1, mask=inside, other=0.0) * scale + 0.5
    z = tl.load(points + 3 * at + 2, mask=inside, other=0.0) * scale + 0.5
    x0, y0, z0 = tl.floor(x), tl.floor(y), tl.floor(z)
    return x0.to(tl.int32), y0.to(tl.int32), z0.to(tl.int32), x - x0, y - y0, z - z0


@triton.jit
def _row(x, y, z, first, size, resolution, hashed):
    """Return the table's rows of vertices; of a hashed level, whose size is a power of two, by the low bits."""
    mixed = x.to(tl.uint32) ^ (y.to(tl.uint32) * 2654435761) ^ (z.to(tl.uint32) * 805459861)
    dense = x.to(tl.int64) + resolution * (y.to(tl.int64) + resolution * z.to(tl.int64))
    place = tl.where(hashed, (mixed & (size - 1).to(tl.uint32)).to(tl.int64), dense % size)
    return first + place


@triton.jit
def _level(scales, resolutions, offsets, hashed, level):
    """Return a level's scale, first entry, number of entries, resolution and whether it is hashed."""
    first = tl.load(offsets + level)
    size = tl.load(offsets + level + 1) - first
    return tl.load(scales + level), first, size, tl.load(resolutions + level), tl.load(hashed + level) != 0


@triton.jit
def features_forward(
    points,  # [P, 3] in [0, 1]
    table,  # [E, 2]
    scales,  # [L]
    resolutions,  # [L] int64
    offsets,  # [L + 1] int64
    hashed,  # [L] int32
    features,  # [L, P, 2] written
    count,
    POINTS: tl.constexpr,
):
    """Write the two features of a level at each point."""
    at = tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    inside, level = at < count, tl.program_id(1)
    scale, first, size, resolution, is_hashed = _level(scales, resolutions, offsets, hashed, level)
    x, y, z, u, v, w = _cell(points, at, inside, scale)
    left, right = tl.zeros([POINTS], tl.float32), tl.zeros([POINTS], tl.float32)
    for corner in tl.static_range(8):  # pyright: ignore[reportGeneralTypeIssues]
        i, j, k = corner // 4, (corner // 2) % 2, corner % 2
        row = _row(x + i, y + j, z + k, first, size, resolution, is_hashed)
        share = (u if i else 1.0 - u) * (v if j else 1.0 - v) * (w if k else 1.0 - w)
        left += share * tl.load(table + 2 * row, mask=inside, other=0.0)
        right += share * tl.load(table + 2 * row + 1, mask=inside, other=0.0)
    place = features + 2 * (at.to(tl.int64) + level * count)
    tl.store(place, left, mask=inside)
    tl.store(place + 1, right, mask=inside)


@triton.jit
def slopes_forward(
    points,  # [P, 3]
    table,  # [E, 2]
    scales,  # [L]
    resolutions,  # [L]
    offsets,  # [L + 1]
    hashed,  # [L]
    directions,  # [L, P, 2] among the features
    slopes,  # [P, 3] written
    count,
    levels,
    POINTS: tl.constexpr,
):
    """Write the derivatives, by the coordinates, of the features' sum along the directions."""
    at = tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    inside = at < count
    by_x = tl.zeros([POINTS], tl.float32)
    by_y, by_z = tl.zeros([POINTS], tl.float32), tl.zeros([POINTS], tl.float32)
    for level in range(levels):
        scale, first, size, resolution, is_hashed = _level(scales, resolutions, offsets, hashed, level)
        x, y, z, u, v, w = _cell(points, at, inside, scale)
        place = directions + 2 * (at.to(tl.int64) + level * count)
        left, right = tl.load(place, mask=inside, other=0.0), tl.load(place + 1, mask=inside, other=0.0)
        for corner in tl.static_range(8):  # pyright: ignore[reportGeneralTypeIssues]
            i, j, k = corner // 4, (corner // 2) % 2, corner % 2
            row = _row(x + i, y + j, z + k, first, size, resolution, is_hashed)
            a, b, c = u if i else 1.0 - u, v if j else 1.0 - v, w if k else 1.0 - w
            value = left * tl.load(table + 2 * row, mask=inside, other=0.0)
            value = scale * (value + right * tl.load(table + 2 * row + 1, mask=inside, other=0.0))
            by_x += (b * c if i else -(b * c)) * value
            by_y += (a * c if j else -(a * c)) * value
            by_z += (a * b if k else -(a * b)) * value
    tl.store(slopes + 3 * at, by_x, mask=inside)
    tl.store(slopes + 3 * at + 1, by_y, mask=inside)
    tl.store(slopes + 3 * at + 2, by_z, mask=inside)


@triton.jit
def directions_backward(
    points,  # [P, 3]
    table,  # [E, 2]
    scales,  # [L]
    resolutions,  # [L]
    offsets,  # [L + 1]
    hashed,  # [L]
    grad_slopes,  # [P, 3]
    grad_directions,  # [L, P, 2] written
    count,
    POINTS: tl.constexpr,
):
    """Write a level's gradient by the directions along which slopes were computed."""
    at = tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    inside, level = at < count, tl.program_id(1)
    scale, first, size, resolution, is_hashed = _level(scales, resolutions, offsets, hashed, level)
    x, y, z, u, v, w = _cell(points, at, inside, scale)
    along_x = scale * tl.load(grad_slopes + 3 * at, mask=inside, other=0.0)
    along_y = scale * tl.load(grad_slopes + 3 * at + 1, mask=inside, other=0.0)
    along_z = scale * tl.load(grad_slopes + 3 * at + 2, mask=inside, other=0.0)
    left, right = tl.zeros([POINTS], tl.float32), tl.zeros([POINTS], tl.float32)
    for corner in tl.static_range(8):  # pyright: ignore[reportGeneralTypeIssues]
        i, j, k = corner // 4, (corner // 2) % 2, corner % 2
        row = _row(x + i, y + j, z + k, first, size, resolution, is_hashed)
        a, b, c = u if i else 1.0 - u, v if j else 1.0 - v, w if k else 1.0 - w
        share = (b * c if i else -(b * c)) * along_x
        share += (a * c if j else -(a * c)) * along_y
        share += (a * b if k else -(a * b)) * along_z
        left += share * tl.load(table + 2 * row, mask=inside, other=0.0)
        right += share * tl.load(table + 2 * row + 1, mask=inside, other=0.0)
    place = grad_directions + 2 * (at.to(tl.int64) + level * count)
    tl.store(place, left, mask=inside)
    tl.store(place + 1, right, mask=inside)


@triton.jit
def table_backward(
    points,  # [P, 3]
    scales,  # [L]
    resolutions,  # [L]
    offsets,  # [L + 1]
    hashed,  # [L]
    grad_features,  # [L, P, 2]
    directions,  # [L, P, 2] if SLOPES
    grad_slopes,  # [P, 3] if SLOPES
    grad_table,  # [E, 2], zero before
    count,
    POINTS: tl.constexpr,
    SLOPES: tl.constexpr,
):
    """Add a level's share of the gradient to the table's: that of its features and that of slopes along directions."""
    at = tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    inside, level = at < count, tl.program_id(1)
    scale, first, size, resolution, is_hashed = _level(scales, resolutions, offsets, hashed, level)
    x, y, z, u, v, w = _cell(points, at, inside, scale)
    place = 2 * (at.to(tl.int64) + level * count)
    left = tl.load(grad_features + place, mask=inside, other=0.0)
    right = tl.load(grad_features + place + 1, mask=inside, other=0.0)
    if SLOPES:
        along_x = scale * tl.load(grad_slopes + 3 * at, mask=inside, other=0.0)
        along_y = scale * tl.load(grad_slopes + 3 * at + 1, mask=inside, other=0.0)
        along_z = scale * tl.load(grad_slopes + 3 * at + 2, mask=inside, other=0.0)
        left_direction = tl.load(directions + place, mask=inside, other=0.0)
        right_direction = tl.load(directions + place + 1, mask=inside, other=0.0)
    for corner in tl.static_range(8):  # pyright: ignore[reportGeneralTypeIssues]
        i, j, k = corner // 4, (corner // 2) % 2, corner % 2
        row = _row(x + i, y + j, z + k, first, size, resolution, is_hashed)
        a, b, c = u if i else 1.0 - u, v if j else 1.0 - v, w if k else 1.0 - w
        by_left, by_right = a * b * c * left, a * b * c * right
        if SLOPES:
            slope = (b * c if i else -(b * c)) * along_x
            slope += (a * c if j else -(a * c)) * along_y
            slope += (a * b if k else -(a * b)) * along_z
            by_left += slope * left_direction
            by_right += slope * right_direction
        tl.atomic_add(grad_table + 2 * row, by_left, mask=inside)
        tl.atomic_add(grad_table + 2 * row + 1, by_right, mask=inside)
