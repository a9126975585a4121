"""The hash encoding, its derivative by position, and the gradient of both by the table, a vector of points at a time.

Levels, hash and offset are those of ``sdi_gs.representations.ngp.hash_grid``. A point that is not finite or far outside
of the cube reads some entry of its level, never beyond the table.

Letters: P points, V points of a block (``simd.LANES``), N blocks, L levels in use, W features of all levels, E entries.
"""

from __future__ import annotations

import numpy as np

from sdi_gs.rasterize.kernels.jit import kernel
from sdi_gs.rasterize.kernels.simd import LANES, broadcast, load, round_down, store
from sdi_gs.representations.ngp.kernels.entries import add_pairs, dense_entries, hashed_entries, load_pairs


@kernel
def gather_lanes(rows, first, column, count, lanes):
    """Load one column of ``count`` rows, starting at ``first``, into a vector; 0 in the remaining lanes."""
    for lane in range(LANES):
        lanes[lane] = rows[first + lane, column] if lane < count else np.float32(0.0)
    return load(lanes, 0)


@kernel
def _find_corners(x, y, z, level, scales, resolutions, offsets, hashed, entries):
    """Write the corners' entries and return the distances from the lowest corner, in cells."""
    scale, first, size = scales[level], offsets[level], offsets[level + 1] - offsets[level]
    x, y, z = x * scale + 0.5, y * scale + 0.5, z * scale + 0.5
    cell_x, cell_y, cell_z = round_down(x), round_down(y), round_down(z)
    if hashed[level]:
        hashed_entries(entries, cell_x, cell_y, cell_z, resolutions[level], size, first)
    else:
        dense_entries(entries, cell_x, cell_y, cell_z, resolutions[level], size, first)
    return x - cell_x, y - cell_y, z - cell_z


@kernel
def _lerp(low, high, share):
    return low + share * (high - low)


@kernel
def _interpolate(v0, v1, v2, v3, v4, v5, v6, v7, x, y, z):
    """Return the trilinear value between eight corners and its derivatives by x, y and z, per cell."""
    d0, d2, d4, d6 = v1 - v0, v3 - v2, v5 - v4, v7 - v6
    a0, a2, a4, a6 = v0 + x * d0, v2 + x * d2, v4 + x * d4, v6 + x * d6
    low, high = _lerp(a0, a2, y), _lerp(a4, a6, y)
    along_x = _lerp(_lerp(d0, d2, y), _lerp(d4, d6, y), z)
    return _lerp(low, high, z), along_x, _lerp(a2 - a0, a6 - a4, z), high - low


@kernel
def encode(
    begin,
    end,
    points,  # [P, 3]
    table,  # [E, 2]
    scales,  # [L]
    resolutions,  # [L]
    offsets,  # [L + 1]
    hashed,  # [L]
    features,  # [N, W, V] written for levels in use
    jacobian,  # [N, 3, W, V] written for levels in use, or empty
):
    """Interpolate points ``begin`` to ``end`` on every level in use; ``begin`` is the start of a block."""
    width, with_jacobian = features.shape[1], len(jacobian) > 0
    flat_table, flat_features, flat_jacobian = table.reshape(-1), features.reshape(-1), jacobian.reshape(-1)
    lanes, entries = np.empty(LANES, np.float32), np.empty(8 * LANES, np.int32)
    for start in range(begin, end, LANES):
        count = min(LANES, end - start)
        px, py = gather_lanes(points, start, 0, count, lanes), gather_lanes(points, start, 1, count, lanes)
        pz = gather_lanes(points, start, 2, count, lanes)
        for level in range(len(scales)):
            x, y, z = _find_corners(px, py, pz, level, scales, resolutions, offsets, hashed, entries)
            a0, b0 = load_pairs(flat_table, entries, 0)
            a1, b1 = load_pairs(flat_table, entries, LANES)
            a2, b2 = load_pairs(flat_table, entries, 2 * LANES)
            a3, b3 = load_pairs(flat_table, entries, 3 * LANES)
            a4, b4 = load_pairs(flat_table, entries, 4 * LANES)
            a5, b5 = load_pairs(flat_table, entries, 5 * LANES)
            a6, b6 = load_pairs(flat_table, entries, 6 * LANES)
            a7, b7 = load_pairs(flat_table, entries, 7 * LANES)
            a, ax, ay, az = _interpolate(a0, a1, a2, a3, a4, a5, a6, a7, x, y, z)
            b, bx, by, bz = _interpolate(b0, b1, b2, b3, b4, b5, b6, b7, x, y, z)
            place = start * width + 2 * level * LANES
            store(flat_features, place, a)
            store(flat_features, place + LANES, b)
            if with_jacobian:
                scale, place, row = scales[level], place + 2 * start * width, width * LANES
                store(flat_jacobian, place, scale * ax)
                store(flat_jacobian, place + LANES, scale * bx)
                store(flat_jacobian, place + row, scale * ay)
                store(flat_jacobian, place + row + LANES, scale * by)
                store(flat_jacobian, place + 2 * row, scale * az)
                store(flat_jacobian, place + 2 * row + LANES, scale * bz)


@kernel
def _halve(value, slope, share):
    """Split a gradient between the upper and the lower side of an axis, given those by value and by slope."""
    upper = share * value + slope
    return upper, value - upper


@kernel
def _spread_gradient(value, by_x, by_y, by_z, x, y, z):
    """Return the gradients of the eight corners: the transpose of ``_interpolate``, one axis after another."""
    high, low = _halve(value, by_z, z)
    high_y, high_x = z * by_y, z * by_x
    low_y, low_x = by_y - high_y, by_x - high_x
    g2, g0 = _halve(low, low_y, y)
    g6, g4 = _halve(high, high_y, y)
    x2, x6 = y * low_x, y * high_x
    g1, g0 = _halve(g0, low_x - x2, x)
    g3, g2 = _halve(g2, x2, x)
    g5, g4 = _halve(g4, high_x - x6, x)
    g7, g6 = _halve(g6, x6, x)
    return g0, g1, g2, g3, g4, g5, g6, g7


@kernel
def encode_backward(
    first_level,
    level_step,
    points,  # [P, 3]
    scales,  # [L]
    resolutions,  # [L]
    offsets,  # [L + 1]
    hashed,  # [L]
    grad_features,  # [N, W, V]
    slope_features,  # [N, W, V] or empty
    grad_slopes,  # [P, 3]
    grad_table,  # [E, 2] added to
):
    """Add the gradient of levels ``first_level``, ``first_level + level_step``, ... over all points to the table's.

    The gradient by the jacobian is the product of ``grad_slopes`` and ``slope_features``.
    """
    width, with_slopes = grad_features.shape[1], len(slope_features) > 0
    flat_features, flat_slopes = grad_features.reshape(-1), slope_features.reshape(-1)
    flat_table = grad_table.reshape(-1)
    lanes, entries = np.empty(LANES, np.float32), np.empty(8 * LANES, np.int32)
    for start in range(0, len(points), LANES):
        # Lanes beyond the last point have a gradient of 0.
        count = min(LANES, len(points) - start)
        px, py = gather_lanes(points, start, 0, count, lanes), gather_lanes(points, start, 1, count, lanes)
        pz = gather_lanes(points, start, 2, count, lanes)
        tx = ty = tz = broadcast(0.0)
        if with_slopes:
            tx, ty = (
                gather_lanes(grad_slopes, start, 0, count, lanes),
                gather_lanes(grad_slopes, start, 1, count, lanes),
            )
            tz = gather_lanes(grad_slopes, start, 2, count, lanes)
        for level in range(first_level, len(scales), level_step):
            x, y, z = _find_corners(px, py, pz, level, scales, resolutions, offsets, hashed, entries)
            place = start * width + 2 * level * LANES
            a, b = load(flat_features, place), load(flat_features, place + LANES)
            sa = sb = broadcast(0.0)
            if with_slopes:
                sa, sb = scales[level] * load(flat_slopes, place), scales[level] * load(flat_slopes, place + LANES)
            a0, a1, a2, a3, a4, a5, a6, a7 = _spread_gradient(a, sa * tx, sa * ty, sa * tz, x, y, z)
            b0, b1, b2, b3, b4, b5, b6, b7 = _spread_gradient(b, sb * tx, sb * ty, sb * tz, x, y, z)
            add_pairs(flat_table, entries, 0, a0, b0)
            add_pairs(flat_table, entries, LANES, a1, b1)
            add_pairs(flat_table, entries, 2 * LANES, a2, b2)
            add_pairs(flat_table, entries, 3 * LANES, a3, b3)
            add_pairs(flat_table, entries, 4 * LANES, a4, b4)
            add_pairs(flat_table, entries, 5 * LANES, a5, b5)
            add_pairs(flat_table, entries, 6 * LANES, a6, b6)
            add_pairs(flat_table, entries, 7 * LANES, a7, b7)
