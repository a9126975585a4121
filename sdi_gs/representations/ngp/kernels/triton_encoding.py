"""The hash encoding's four kernels in Triton: features, slopes along a direction, and the backward pass of each.

Imported only where they run, on CUDA; ``TRITON_INTERPRET=1`` runs them on a CPU, as the tests do. Sums over the points
of one entry are atomic, in no fixed order.

Letters: P points, L levels in use, W = 2 times all levels, E entries.
"""

# ruff: noqa: N803, N806
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
def features_forward(
    points,  # [P, 3] in [0, 1]
    table,  # [E, 2]
    scales,  # [L]
    resolutions,  # [L] int64
    offsets,  # [L + 1] int64
    hashed,  # [L] int32
    features,  # [P, W]
    count,
    WIDTH: tl.constexpr,
    POINTS: tl.constexpr,
):
    """Write the two features of a level at each point."""
    at = tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    level = tl.program_id(1)
    inside = at < count
    first = tl.load(offsets + level)
    size, resolution = tl.load(offsets + level + 1) - first, tl.load(resolutions + level)
    is_hashed = tl.load(hashed + level) != 0
    x, y, z, u, v, w = _cell(points, at, inside, tl.load(scales + level))
    left, right = tl.zeros([POINTS], tl.float32), tl.zeros([POINTS], tl.float32)
    for corner in tl.static_range(8):  # pyright: ignore[reportGeneralTypeIssues]
        i, j, k = corner // 4, (corner // 2) % 2, corner % 2
        row = _row(x + i, y + j, z + k, first, size, resolution, is_hashed)
        share = (u if i else 1.0 - u) * (v if j else 1.0 - v) * (w if k else 1.0 - w)
        left += share * tl.load(table + 2 * row, mask=inside, other=0.0)
        right += share * tl.load(table + 2 * row + 1, mask=inside, other=0.0)
    place = features + at.to(tl.int64) * WIDTH + 2 * level
    tl.store(place, left, mask=inside)
    tl.store(place + 1, right, mask=inside)


@triton.jit
def features_backward(
    points,  # [P, 3]
    scales,  # [L]
    resolutions,  # [L]
    offsets,  # [L + 1]
    hashed,  # [L]
    grad_features,  # [P, W]
    grad_table,  # [E, 2], zero before
    count,
    WIDTH: tl.constexpr,
    POINTS: tl.constexpr,
):
    """Add a level's share of the gradient to the table's."""
    at = tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    level = tl.program_id(1)
    inside = at < count
    first = tl.load(offsets + level)
    size, resolution = tl.load(offsets + level + 1) - first, tl.load(resolutions + level)
    is_hashed = tl.load(hashed + level) != 0
    x, y, z, u, v, w = _cell(points, at, inside, tl.load(scales + level))
    place = grad_features + at.to(tl.int64) * WIDTH + 2 * level
    left, right = tl.load(place, mask=inside, other=0.0), tl.load(place + 1, mask=inside, other=0.0)
    for corner in tl.static_range(8):  # pyright: ignore[reportGeneralTypeIssues]
        i, j, k = corner // 4, (corner // 2) % 2, corner % 2
        row = _row(x + i, y + j, z + k, first, size, resolution, is_hashed)
        share = (u if i else 1.0 - u) * (v if j else 1.0 - v) * (w if k else 1.0 - w)
        tl.atomic_add(grad_table + 2 * row, share * left, mask=inside)
        tl.atomic_add(grad_table + 2 * row + 1, share * right, mask=inside)


@triton.jit
def slopes_forward(
    points,  # [P, 3]
    table,  # [E, 2]
    scales,  # [L]
    resolutions,  # [L]
    offsets,  # [L + 1]
    hashed,  # [L]
    directions,  # [P, W] among the features
    slopes,  # [P, 3]
    count,
    levels,
    WIDTH: tl.constexpr,
    POINTS: tl.constexpr,
):
    """Write the derivatives, by the coordinates, of the features' sum along the directions."""
    at = tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    inside = at < count
    by_x = tl.zeros([POINTS], tl.float32)
    by_y, by_z = tl.zeros([POINTS], tl.float32), tl.zeros([POINTS], tl.float32)
    for level in range(levels):
        first, scale = tl.load(offsets + level), tl.load(scales + level)
        size, resolution = tl.load(offsets + level + 1) - first, tl.load(resolutions + level)
        is_hashed = tl.load(hashed + level) != 0
        x, y, z, u, v, w = _cell(points, at, inside, scale)
        place = directions + at.to(tl.int64) * WIDTH + 2 * level
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
def slopes_backward(
    points,  # [P, 3]
    table,  # [E, 2]
    scales,  # [L]
    resolutions,  # [L]
    offsets,  # [L + 1]
    hashed,  # [L]
    directions,  # [P, W]
    grad_slopes,  # [P, 3]
    grad_directions,  # [P, W]
    grad_table,  # [E, 2], zero before
    count,
    WIDTH: tl.constexpr,
    POINTS: tl.constexpr,
):
    """Write a level's gradient by the directions, and add its share of the table's."""
    at = tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    level = tl.program_id(1)
    inside = at < count
    first, scale = tl.load(offsets + level), tl.load(scales + level)
    size, resolution = tl.load(offsets + level + 1) - first, tl.load(resolutions + level)
    is_hashed = tl.load(hashed + level) != 0
    x, y, z, u, v, w = _cell(points, at, inside, scale)
    along_x = scale * tl.load(grad_slopes + 3 * at, mask=inside, other=0.0)
    along_y = scale * tl.load(grad_slopes + 3 * at + 1, mask=inside, other=0.0)
    along_z = scale * tl.load(grad_slopes + 3 * at + 2, mask=inside, other=0.0)
    place = at.to(tl.int64) * WIDTH + 2 * level
    left = tl.load(directions + place, mask=inside, other=0.0)
    right = tl.load(directions + place + 1, mask=inside, other=0.0)
    grad_left, grad_right = tl.zeros([POINTS], tl.float32), tl.zeros([POINTS], tl.float32)
    for corner in tl.static_range(8):  # pyright: ignore[reportGeneralTypeIssues]
        i, j, k = corner // 4, (corner // 2) % 2, corner % 2
        row = _row(x + i, y + j, z + k, first, size, resolution, is_hashed)
        a, b, c = u if i else 1.0 - u, v if j else 1.0 - v, w if k else 1.0 - w
        share = (b * c if i else -(b * c)) * along_x
        share += (a * c if j else -(a * c)) * along_y
        share += (a * b if k else -(a * b)) * along_z
        grad_left += share * tl.load(table + 2 * row, mask=inside, other=0.0)
        grad_right += share * tl.load(table + 2 * row + 1, mask=inside, other=0.0)
        tl.atomic_add(grad_table + 2 * row, share * left, mask=inside)
        tl.atomic_add(grad_table + 2 * row + 1, share * right, mask=inside)
    tl.store(grad_directions + place, grad_left, mask=inside)
    tl.store(grad_directions + place + 1, grad_right, mask=inside)
