"""EWA projection of 3D Gaussians to the image plane, one Gaussian per lane; ``projection_backward`` is its gradient.

Source: gsplat 1.5.3 ``csrc/ProjectionEWA3DGSFused.cu`` and ``include/Utils.cuh``, culling rules included. With a
factor M of the covariance, view rotation V and the projection's Jacobian J, the image covariance is (J V M)(J V M)^T.
The rows u, v of J V M give its determinant as |u x v|^2, which has no cancellation even for thin needles. M is the
quaternion's rotation times the scales or, for given covariances, their Cholesky factor.

``ortho`` and ``from_covars`` are flags as tuples, empty for false: a kernel is compiled for each value.

Letters: C cameras, N Gaussians.
"""

from __future__ import annotations

import math

import numpy as np

from sdi_gs.rasterize.kernels.channels import FOUR, THREE, channel_store, load_columns, store_columns
from sdi_gs.rasterize.kernels.geometry import dot, load_row, row_times_matrix, scale_columns
from sdi_gs.rasterize.kernels.jit import kernel
from sdi_gs.rasterize.kernels.simd import (
    LANES,
    as_int_bits,
    broadcast,
    load,
    log,
    maximum,
    minimum,
    round_down,
    round_up,
    select,
    square_root,
    store,
)

MIN_ALPHA = 1.0 / 255.0
MAX_EXTENT = 3.33
"""Largest half-width of a footprint, in standard deviations."""
TILE_SIZE = 16
# Pixels; the sum of two fits an int32.
_MAX_RADIUS = 1e9

# Vectors of a block's parameters: mean, quaternion (at 3) and scale (at 7), or Cholesky factor (at 3), opacity.
NUM_PARAMETERS = 11


@kernel
def camera_of(viewmats, intrinsics, camera, size):
    """Return view rows, translation, (fx, fy, cx, cy) and the limits (x low, x high, y low, y high) of x/z and y/z."""
    view = viewmats[camera]
    rows = (
        (view[0, 0], view[0, 1], view[0, 2]),
        (view[1, 0], view[1, 1], view[1, 2]),
        (view[2, 0], view[2, 1], view[2, 2]),
    )
    translation = (view[0, 3], view[1, 3], view[2, 3])
    fx, fy = intrinsics[camera, 0, 0], intrinsics[camera, 1, 1]
    cx, cy = intrinsics[camera, 0, 2], intrinsics[camera, 1, 2]
    width, height = np.float32(size[0]), np.float32(size[1])
    # The Jacobian is evaluated at most 0.3 half-images beyond each border, as in gsplat.
    margin_x, margin_y = np.float32(0.15) * width / fx, np.float32(0.15) * height / fy
    limits = (
        -cx / fx - margin_x,
        (width - cx) / fx + margin_x,
        -cy / fy - margin_y,
        (height - cy) / fy + margin_y,
    )
    return rows, translation, (fx, fy, cx, cy), limits


@kernel
def load_parameters(means, quats, scales, covars, from_covars, opacities, first, count, buffer):
    """Transpose up to ``LANES`` Gaussians into ``buffer``, one vector per parameter; unused lanes are set to 1."""
    if count == LANES and len(from_covars) == 0:
        channel_store(buffer, 0, LANES, load_columns(means, first, THREE))
        channel_store(buffer, 3 * LANES, LANES, load_columns(quats, first, FOUR))
        channel_store(buffer, 7 * LANES, LANES, load_columns(scales, first, THREE))
        store(buffer, 10 * LANES, load(opacities, first))
        return
    for lane in range(LANES):
        i = first + lane
        if lane < count:
            for k in range(3):
                buffer[k * LANES + lane] = means[i, k]
            if len(from_covars) > 0:
                _load_cholesky(covars, i, buffer, lane)
            else:
                for k in range(3):
                    buffer[(7 + k) * LANES + lane] = scales[i, k]
                for k in range(4):
                    buffer[(3 + k) * LANES + lane] = quats[i, k]
            buffer[10 * LANES + lane] = opacities[i]
        else:
            for k in range(NUM_PARAMETERS):
                buffer[k * LANES + lane] = 1.0


@kernel
def _load_cholesky(covars, i, buffer, lane):
    """Write the lower triangle of the covariance's Cholesky factor, row by row.

    Double precision keeps all digits of the single-precision covariance. Rounding of the covariance may leave pivots
    that are pure rounding errors: negative ones are set to zero, and every entry is limited to its row's remaining
    variance.
    """
    xx, xy, xz = np.float64(covars[i, 0]), np.float64(covars[i, 1]), np.float64(covars[i, 2])
    yy, yz, zz = np.float64(covars[i, 3]), np.float64(covars[i, 4]), np.float64(covars[i, 5])
    x = math.sqrt(max(xx, 0.0))
    yx, y = _cholesky_entry(xy, x, yy)
    zx, rest = _cholesky_entry(xz, x, zz)
    zy, z = _cholesky_entry(yz - zx * yx, y, rest * rest)
    buffer[3 * LANES + lane], buffer[4 * LANES + lane], buffer[5 * LANES + lane] = x, yx, y
    buffer[6 * LANES + lane], buffer[7 * LANES + lane], buffer[8 * LANES + lane] = zx, zy, z


@kernel
def _cholesky_entry(product, pivot, variance):
    """Return ``product / pivot``, limited to +-sqrt(variance), and the square root of the remaining variance."""
    limit = math.sqrt(max(variance, 0.0))
    entry = min(max(product / pivot, -limit), limit) if pivot > 0.0 else 0.0
    return entry, math.sqrt(max(variance - entry * entry, 0.0))


@kernel
def rotation(buffer):
    """Return the unit quaternion (w, x, y, z), 1 / norm, and the rotation matrix."""
    w, x, y, z = (
        load(buffer, 3 * LANES),
        load(buffer, 4 * LANES),
        load(buffer, 5 * LANES),
        load(buffer, 6 * LANES),
    )
    # The bound makes a zero quaternion the identity.
    inverse_norm = 1.0 / square_root(maximum(w * w + x * x + y * y + z * z, 1e-30))
    w, x, y, z = w * inverse_norm, x * inverse_norm, y * inverse_norm, z * inverse_norm
    matrix = (
        1.0 - 2.0 * (y * y + z * z),
        2.0 * (x * y - w * z),
        2.0 * (x * z + w * y),
        2.0 * (x * y + w * z),
        1.0 - 2.0 * (x * x + z * z),
        2.0 * (y * z - w * x),
        2.0 * (x * z - w * y),
        2.0 * (y * z + w * x),
        1.0 - 2.0 * (x * x + y * y),
    )
    return (w, x, y, z), inverse_norm, matrix


@kernel
def covariance_factor(buffer, from_covars):
    """Return a matrix M with M M^T the covariance."""
    if len(from_covars) > 0:
        zero = broadcast(0.0)
        x, yx, y = load_row(buffer, 3)
        zx, zy, z = load_row(buffer, 6)
        factor = (x, zero, zero, yx, y, zero, zx, zy, z)
    else:
        factor = scale_columns(rotation(buffer)[2], load_row(buffer, 7))
    return factor


@kernel
def jacobian_rows(camera, scale, ratio_x, ratio_y):
    """Return the two rows of J V, with J evaluated at the scale and clamped x and y of ``image_place``."""
    rows, _, (fx, fy, _, _), _ = camera
    scale_x, scale_y = fx * scale, fy * scale
    row_x = (
        scale_x * (rows[0][0] - ratio_x * rows[2][0]),
        scale_x * (rows[0][1] - ratio_x * rows[2][1]),
        scale_x * (rows[0][2] - ratio_x * rows[2][2]),
    )
    row_y = (
        scale_y * (rows[1][0] - ratio_y * rows[2][0]),
        scale_y * (rows[1][1] - ratio_y * rows[2][1]),
        scale_y * (rows[1][2] - ratio_y * rows[2][2]),
    )
    return row_x, row_y


@kernel
def image_place(camera, mean, depth, visible, ortho):
    """Return the scale, x and y in units of the focal lengths, and x and y clamped for the Jacobian.

    The scale is 1/z. Orthographic cameras have scale 1 and a Jacobian that does not depend on the centre: their
    clamped x and y are 0.
    """
    rows, translation, _, (x_low, x_high, y_low, y_high) = camera
    x, y = dot(rows[0], mean) + translation[0], dot(rows[1], mean) + translation[1]
    if len(ortho) > 0:
        scale = broadcast(1.0)
        clamped_x, clamped_y = broadcast(0.0), broadcast(0.0)
    else:
        scale = 1.0 / select(visible, depth, 1.0)
        x, y = x * scale, y * scale
        clamped_x, clamped_y = minimum(maximum(x, x_low), x_high), minimum(maximum(y, y_low), y_high)
    return scale, x, y, clamped_x, clamped_y


@kernel
def image_covariance(u, v, eps2d, visible):
    """Return the blurred covariance (xx, xy, yy), its inverse determinant, the sharp determinant and a validity mask.

    The mask holds where the blurred determinant is positive. Elsewhere, and for invisible Gaussians, the inverse is 1.
    """
    xx, xy, yy = dot(u, u), dot(u, v), dot(v, v)
    cross_x, cross_y, cross_z = u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]
    sharp_determinant = cross_x * cross_x + cross_y * cross_y + cross_z * cross_z
    determinant = sharp_determinant + eps2d * (xx + yy) + eps2d * eps2d
    inverse_determinant = 1.0 / select(visible & (determinant > 0.0), determinant, 1.0)
    return (xx + eps2d, xy, yy + eps2d), inverse_determinant, sharp_determinant, determinant > 0.0


@kernel
def _num_tiles(center, radius, num_tiles):
    """Return the number of tiles that a footprint's box covers along one axis."""
    low, high = round_down((center - radius) * (1.0 / TILE_SIZE)), round_up((center + radius) * (1.0 / TILE_SIZE))
    return minimum(maximum(high, 0.0), num_tiles) - minimum(maximum(low, 0.0), num_tiles)


@kernel
def _footprint(center, covariance, opacity, visible, size, radius_clip):
    """Return the radii in pixels and the number of tiles of the box; 0 for Gaussians that gsplat's rules cull."""
    x, y = center
    width, height = np.float32(size[0]), np.float32(size[1])
    reach = square_root(2.0 * log(maximum(opacity * (1.0 / MIN_ALPHA), 1.0)))
    extent = minimum(reach, MAX_EXTENT)
    radius_x = minimum(round_up(extent * square_root(covariance[0])), _MAX_RADIUS)
    radius_y = minimum(round_up(extent * square_root(covariance[2])), _MAX_RADIUS)
    visible = visible & (opacity >= MIN_ALPHA) & ((radius_x > radius_clip) | (radius_y > radius_clip))
    visible = visible & (x + radius_x > 0.0) & (x - radius_x < width)
    visible = visible & (y + radius_y > 0.0) & (y - radius_y < height)
    tiles_x = _num_tiles(x, radius_x, -(-size[0] // TILE_SIZE))
    tiles_y = _num_tiles(y, radius_y, -(-size[1] // TILE_SIZE))
    return select(visible, radius_x, 0.0), select(visible, radius_y, 0.0), select(visible, tiles_x * tiles_y, 0.0)


@kernel
def project(
    begin,
    end,
    means,  # [N, 3]
    quats,  # [N, 4]
    scales,  # [N, 3]
    covars,  # [N, 6] xx xy xz yy yz zz, read instead of quats and scales if from_covars
    from_covars,
    opacities,  # [N]
    viewmats,  # [C, 4, 4]
    intrinsics,  # [C, 3, 3]
    size,  # (width, height) pixels
    limits,  # (eps2d, near, far, radius_clip)
    antialiased,
    ortho,
    radii,  # [C, N, 2] int32, written
    means2d,  # [C, N, 2] written
    depths,  # [C, N] written
    conics,  # [C, N, 3] written
    compensations,  # [C, N] written if antialiased
    tiles_per_gauss,  # [C, N] int32, written
):
    """Project Gaussians ``begin`` to ``end`` into every camera; culled Gaussians get zeros."""
    eps2d, near, far, radius_clip = limits
    parameters = np.empty(NUM_PARAMETERS * LANES, np.float32)
    results, whole_results = np.empty(7 * LANES, np.float32), np.empty(3 * LANES, np.int32)
    for first in range(begin, end, LANES):
        count = min(LANES, end - first)
        load_parameters(means, quats, scales, covars, from_covars, opacities, first, count, parameters)
        mean, opacity = load_row(parameters, 0), load(parameters, 10 * LANES)
        factor = covariance_factor(parameters, from_covars)
        for c in range(viewmats.shape[0]):
            camera = camera_of(viewmats, intrinsics, c, size)
            rows, translation, (fx, fy, cx, cy), _ = camera
            depth = dot(rows[2], mean) + translation[2]
            visible = (depth >= near) & (depth <= far)
            scale, ratio_x, ratio_y, clamped_x, clamped_y = image_place(camera, mean, depth, visible, ortho)
            row_x, row_y = jacobian_rows(camera, scale, clamped_x, clamped_y)
            u, v = row_times_matrix(row_x, factor), row_times_matrix(row_y, factor)
            covariance, inverse_determinant, sharp_determinant, regular = image_covariance(u, v, eps2d, visible)
            compensation = broadcast(1.0)
            if antialiased:
                compensation = square_root(sharp_determinant * inverse_determinant)
            x, y = ratio_x * fx + cx, ratio_y * fy + cy
            radius_x, radius_y, num_tiles = _footprint(
                (x, y), covariance, opacity * compensation, visible & regular, size, radius_clip
            )
            drawn = radius_x + radius_y > 0.0
            center = (select(drawn, x, 0.0), select(drawn, y, 0.0))
            depth, compensation = select(drawn, depth, 0.0), select(drawn, compensation, 0.0)
            conic = (
                select(drawn, covariance[2] * inverse_determinant, 0.0),
                select(drawn, -covariance[1] * inverse_determinant, 0.0),
                select(drawn, covariance[0] * inverse_determinant, 0.0),
            )
            radius, num_tiles = (as_int_bits(radius_x), as_int_bits(radius_y)), as_int_bits(num_tiles)
            if count == LANES:
                item = c * means.shape[0] + first
                store_columns(radii, item, radius)
                store_columns(means2d, item, center)
                store_columns(conics, item, conic)
                store(depths, item, depth)
                store(tiles_per_gauss, item, num_tiles)
                if antialiased:
                    store(compensations, item, compensation)
                continue
            channel_store(results, 0, LANES, (*center, depth, *conic, compensation))
            channel_store(whole_results, 0, LANES, (*radius, num_tiles))
            for lane in range(count):
                i = first + lane
                radii[c, i, 0], radii[c, i, 1] = whole_results[lane], whole_results[LANES + lane]
                tiles_per_gauss[c, i] = whole_results[2 * LANES + lane]
                means2d[c, i, 0], means2d[c, i, 1] = results[lane], results[LANES + lane]
                depths[c, i] = results[2 * LANES + lane]
                for k in range(3):
                    conics[c, i, k] = results[(3 + k) * LANES + lane]
                if antialiased:
                    compensations[c, i] = results[6 * LANES + lane]
