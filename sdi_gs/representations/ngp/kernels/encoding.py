"""The hash encoding, its derivative by position, and the gradient of both by the table.

Many points go through one level after another, so that a level's constants stay in registers. Features lie in blocks
of V points, each feature a vector, as the networks' kernels read them. Levels, hash and offset:
``sdi_gs.representations.ngp.hash_grid``.

Letters: P points, V points of a block (``simd.LANES``), N blocks, L levels in use, W features of all levels, E entries.
"""

from __future__ import annotations

import math

import numpy as np

from sdi_gs.rasterize.kernels.jit import kernel
from sdi_gs.rasterize.kernels.simd import LANES

_POINTS_AT_ONCE = 512
_PRIME_Y, _PRIME_Z = np.uint64(2654435761), np.uint64(805459861)
_HALF = np.float32(0.5)


@kernel
def _cell(coordinate, scale):
    """Lower vertex along one axis, and the distance from it in cells."""
    position = coordinate * scale + _HALF
    cell = math.floor(position)
    return np.uint64(cell), position - np.float32(cell)


@kernel
def _terms(cell, hashed, factor, prime):
    """What a lower and an upper vertex of one axis add to an entry's place."""
    if hashed:
        return cell * prime, (cell + np.uint64(1)) * prime
    return cell * factor, (cell + np.uint64(1)) * factor


@kernel
def _place(x, y, z, hashed, size):
    """The entry of a vertex, from the terms of its coordinates."""
    if hashed:
        return (x ^ y ^ z) & (size - np.uint64(1))
    place = x + y + z
    return place - size if place >= size else place


@kernel
def _corners(point, scale, resolution, hashed, size, first):
    """Entries of the eight corners, x fastest, and the distances from the lowest."""
    cell_x, high_x = _cell(point[0], scale)
    cell_y, high_y = _cell(point[1], scale)
    cell_z, high_z = _cell(point[2], scale)
    x0, x1 = _terms(cell_x, hashed, np.uint64(1), np.uint64(1))
    y0, y1 = _terms(cell_y, hashed, resolution, _PRIME_Y)
    z0, z1 = _terms(cell_z, hashed, resolution * resolution, _PRIME_Z)
    entries = (
        first + _place(x0, y0, z0, hashed, size),
        first + _place(x1, y0, z0, hashed, size),
        first + _place(x0, y1, z0, hashed, size),
        first + _place(x1, y1, z0, hashed, size),
        first + _place(x0, y0, z1, hashed, size),
        first + _place(x1, y0, z1, hashed, size),
        first + _place(x0, y1, z1, hashed, size),
        first + _place(x1, y1, z1, hashed, size),
    )
    return entries, high_x, high_y, high_z


@kernel
def _lerp(low, high, share):
    return low + share * (high - low)


@kernel
def encode(
    begin,
    end,
    points,  # [P, 3]
    table,  # [E, 2]
    scales,  # [L]
    resolutions,  # [L]
    offsets,  # [L + 1]
    hashed_levels,  # [L]
    features,  # [N, W, V] written for levels in use
    jacobian,  # [N, 3, W, V] likewise, or empty
):
    """Interpolate points ``begin`` to ``end`` on every level in use."""
    with_jacobian = len(jacobian) > 0
    for chunk in range(begin, end, _POINTS_AT_ONCE):
        chunk_end = min(chunk + _POINTS_AT_ONCE, end)
        for level in range(len(scales)):
            scale, resolution = scales[level], np.uint64(resolutions[level])
            hashed, first = hashed_levels[level], np.uint64(offsets[level])
            size = np.uint64(offsets[level + 1] - offsets[level])
            for p in range(chunk, chunk_end):
                entries, x, y, z = _corners(points[p], scale, resolution, hashed, size, first)
                e0, e1, e2, e3, e4, e5, e6, e7 = entries
                block, lane = p // LANES, p % LANES
                for f in range(2):
                    v0, v2, v4, v6 = table[e0, f], table[e2, f], table[e4, f], table[e6, f]
                    d0, d2 = table[e1, f] - v0, table[e3, f] - v2
                    d4, d6 = table[e5, f] - v4, table[e7, f] - v6
                    a0, a2, a4, a6 = v0 + x * d0, v2 + x * d2, v4 + x * d4, v6 + x * d6
                    low, high = _lerp(a0, a2, y), _lerp(a4, a6, y)
                    features[block, 2 * level + f, lane] = _lerp(low, high, z)
                    if with_jacobian:
                        along_x = _lerp(_lerp(d0, d2, y), _lerp(d4, d6, y), z)
                        jacobian[block, 0, 2 * level + f, lane] = scale * along_x
                        jacobian[block, 1, 2 * level + f, lane] = scale * _lerp(a2 - a0, a6 - a4, z)
                        jacobian[block, 2, 2 * level + f, lane] = scale * (high - low)


@kernel
def encode_backward(
    first_level,
    level_step,
    points,  # [P, 3]
    scales,  # [L]
    resolutions,  # [L]
    offsets,  # [L + 1]
    hashed_levels,  # [L]
    grad_features,  # [N, W, V]
    slope_features,  # [N, W, V] or empty
    grad_slopes,  # [P, 3]
    grad_table,  # [E, 2] added to
):
    """Add the gradient of levels ``first_level``, ``first_level + level_step``, ... of all points.

    The gradient by the jacobian is the product of ``grad_slopes`` and ``slope_features``.
    """
    with_slopes = len(slope_features) > 0
    for chunk in range(0, len(points), _POINTS_AT_ONCE):
        chunk_end = min(chunk + _POINTS_AT_ONCE, len(points))
        for level in range(first_level, len(scales), level_step):
            scale, resolution = scales[level], np.uint64(resolutions[level])
            hashed, first = hashed_levels[level], np.uint64(offsets[level])
            size = np.uint64(offsets[level + 1] - offsets[level])
            for p in range(chunk, chunk_end):
                entries, x, y, z = _corners(points[p], scale, resolution, hashed, size, first)
                e0, e1, e2, e3, e4, e5, e6, e7 = entries
                block, lane = p // LANES, p % LANES
                for f in range(2):
                    value = grad_features[block, 2 * level + f, lane]
                    by_x = by_y = by_z = np.float32(0.0)
                    if with_slopes:
                        slope = scale * slope_features[block, 2 * level + f, lane]
                        by_x = slope * grad_slopes[p, 0]
                        by_y = slope * grad_slopes[p, 1]
                        by_z = slope * grad_slopes[p, 2]
                    # The transpose of the interpolation, one axis after another.
                    high_z, high_zx, high_zy = z * value + by_z, z * by_x, z * by_y
                    low_z, low_zx, low_zy = value - high_z, by_x - high_zx, by_y - high_zy
                    high, high_x = y * low_z + low_zy, y * low_zx
                    low, low_x = low_z - high, low_zx - high_x
                    upper, lower = x * low + low_x, x * high + high_x
                    grad_table[e0, f] += low - upper
                    grad_table[e1, f] += upper
                    grad_table[e2, f] += high - lower
                    grad_table[e3, f] += lower
                    high, high_x = y * high_z + high_zy, y * high_zx
                    low, low_x = high_z - high, high_zx - high_x
                    upper, lower = x * low + low_x, x * high + high_x
                    grad_table[e4, f] += low - upper
                    grad_table[e5, f] += upper
                    grad_table[e6, f] += high - lower
                    grad_table[e7, f] += lower
