"""EWA projection of 3D Gaussians to the image plane, and its gradient, 16 Gaussians per vector.

After gsplat 1.5.3 ``csrc/ProjectionEWA3DGSFused.cu`` and ``include/Utils.cuh``, culling rules included. With the
quaternion's rotation R, scales s, M = R diag(s), view rotation V and the projection's Jacobian J, the image covariance is
(J V M)(J V M)^T, whose two rows u, v give the determinant as |u x v|^2: no cancellation for needles.

Letters: C cameras, N Gaussians. A 3x3 matrix is a flat tuple of 9, row by row.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from sdi_gs.rasterize.kernels.simd import (
    KERNEL_OPTIONS,
    LANES,
    any_lane,
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
"""Standard deviations at which a footprint ends at the latest."""
TILE_SIZE = 16

_NUM_PARAMETERS = 11
_NUM_OUTPUTS = 9


@njit(**KERNEL_OPTIONS)
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@njit(**KERNEL_OPTIONS)
def _row_times_matrix(row, matrix):
    return (
        row[0] * matrix[0] + row[1] * matrix[3] + row[2] * matrix[6],
        row[0] * matrix[1] + row[1] * matrix[4] + row[2] * matrix[7],
        row[0] * matrix[2] + row[1] * matrix[5] + row[2] * matrix[8],
    )


@njit(**KERNEL_OPTIONS)
def _matrix_times_column(matrix, column):
    return (
        matrix[0] * column[0] + matrix[1] * column[1] + matrix[2] * column[2],
        matrix[3] * column[0] + matrix[4] * column[1] + matrix[5] * column[2],
        matrix[6] * column[0] + matrix[7] * column[1] + matrix[8] * column[2],
    )


@njit(**KERNEL_OPTIONS)
def _camera(viewmats, intrinsics, camera, width, height):
    """View rows, translation, (fx, fy, cx, cy) and the limits (x low, x high, y low, y high) of x/z and y/z."""
    view = viewmats[camera]
    rows = (
        (view[0, 0], view[0, 1], view[0, 2]),
        (view[1, 0], view[1, 1], view[1, 2]),
        (view[2, 0], view[2, 1], view[2, 2]),
    )
    translation = (view[0, 3], view[1, 3], view[2, 3])
    fx, fy = intrinsics[camera, 0, 0], intrinsics[camera, 1, 1]
    cx, cy = intrinsics[camera, 0, 2], intrinsics[camera, 1, 2]
    # The Jacobian is taken no further out than 0.3 half-images beyond each border.
    margin_x, margin_y = np.float32(0.15) * width / fx, np.float32(0.15) * height / fy
    limits = (
        -cx / fx - margin_x,
        (width - cx) / fx + margin_x,
        -cy / fy - margin_y,
        (height - cy) / fy + margin_y,
    )
    return rows, translation, (fx, fy, cx, cy), limits


@njit(**KERNEL_OPTIONS)
def _load_parameters(means, quats, scales, opacities, first, count, buffer):
    """Transpose up to 16 Gaussians into ``buffer``, one vector per parameter; empty lanes get harmless values."""
    for lane in range(LANES):
        i = first + lane
        if lane < count:
            for k in range(3):
                buffer[k * LANES + lane] = means[i, k]
                buffer[(7 + k) * LANES + lane] = scales[i, k]
            for k in range(4):
                buffer[(3 + k) * LANES + lane] = quats[i, k]
            buffer[10 * LANES + lane] = opacities[i]
        else:
            for k in range(_NUM_PARAMETERS):
                buffer[k * LANES + lane] = 1.0


@njit(**KERNEL_OPTIONS)
def _rotation(buffer):
    """Unit quaternion (w, x, y, z), 1 / norm, and the rotation matrix."""
    w, x, y, z = (
        load(buffer, 3 * LANES),
        load(buffer, 4 * LANES),
        load(buffer, 5 * LANES),
        load(buffer, 6 * LANES),
    )
    # A zero quaternion turns nothing.
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


@njit(**KERNEL_OPTIONS)
def _scale_columns(matrix, scales):
    return (
        matrix[0] * scales[0],
        matrix[1] * scales[1],
        matrix[2] * scales[2],
        matrix[3] * scales[0],
        matrix[4] * scales[1],
        matrix[5] * scales[2],
        matrix[6] * scales[0],
        matrix[7] * scales[1],
        matrix[8] * scales[2],
    )


@njit(**KERNEL_OPTIONS)
def _jacobian_rows(camera, inverse_depth, ratio_x, ratio_y):
    """The two rows of J V, J taken at the clamped x/z and y/z."""
    rows, _, (fx, fy, _, _), _ = camera
    j00, j02 = fx * inverse_depth, -(fx * inverse_depth * ratio_x)
    j11, j12 = fy * inverse_depth, -(fy * inverse_depth * ratio_y)
    row_x = (
        j00 * rows[0][0] + j02 * rows[2][0],
        j00 * rows[0][1] + j02 * rows[2][1],
        j00 * rows[0][2] + j02 * rows[2][2],
    )
    row_y = (
        j11 * rows[1][0] + j12 * rows[2][0],
        j11 * rows[1][1] + j12 * rows[2][1],
        j11 * rows[1][2] + j12 * rows[2][2],
    )
    return row_x, row_y


@njit(**KERNEL_OPTIONS)
def _image_covariance(u, v, eps2d):
    """Covariance (xx, xy, yy) without blur, its determinant, and the determinant with blur."""
    xx, xy, yy = _dot(u, u), _dot(u, v), _dot(v, v)
    cross_x, cross_y, cross_z = (
        u[1] * v[2] - u[2] * v[1],
        u[2] * v[0] - u[0] * v[2],
        u[0] * v[1] - u[1] * v[0],
    )
    sharp_determinant = cross_x * cross_x + cross_y * cross_y + cross_z * cross_z
    return xx, xy, yy, sharp_determinant, sharp_determinant + eps2d * (xx + yy) + eps2d * eps2d


@njit(**KERNEL_OPTIONS)
def _tiles_between(center, radius, num_tiles):
    """First and one-past-last tile that a footprint's box covers along one axis."""
    low = round_down((center - radius) * (1.0 / TILE_SIZE))
    high = round_up((center + radius) * (1.0 / TILE_SIZE))
    return minimum(maximum(low, 0.0), num_tiles), minimum(maximum(high, 0.0), num_tiles)


@njit(**KERNEL_OPTIONS)
def project(
    begin,
    end,
    means,  # [N, 3]
    quats,  # [N, 4]
    scales,  # [N, 3]
    opacities,  # [N]
    viewmats,  # [C, 4, 4]
    intrinsics,  # [C, 3, 3]
    size,  # (width, height) pixels
    limits,  # (eps2d, near, far, radius_clip)
    antialiased,
    radii,  # [C, N, 2] int32, written
    means2d,  # [C, N, 2] written
    depths,  # [C, N] written
    conics,  # [C, N, 3] written
    compensations,  # [C, N] written if antialiased
    tiles_per_gauss,  # [C, N] int32, written
):
    """Project Gaussians ``begin`` to ``end`` into every camera; culled ones get zeros."""
    width, height = np.float32(size[0]), np.float32(size[1])
    eps2d, near, far, radius_clip = limits
    tiles_x, tiles_y = -(-size[0] // TILE_SIZE), -(-size[1] // TILE_SIZE)
    parameters = np.empty(_NUM_PARAMETERS * LANES, np.float32)
    results = np.empty(_NUM_OUTPUTS * LANES, np.float32)
    for first in range(begin, end, LANES):
        count = min(LANES, end - first)
        _load_parameters(means, quats, scales, opacities, first, count, parameters)
        mean = (load(parameters, 0), load(parameters, LANES), load(parameters, 2 * LANES))
        scale = (load(parameters, 7 * LANES), load(parameters, 8 * LANES), load(parameters, 9 * LANES))
        opacity = load(parameters, 10 * LANES)
        _, _, rotation = _rotation(parameters)
        factor = _scale_columns(rotation, scale)
        for c in range(viewmats.shape[0]):
            camera = _camera(viewmats, intrinsics, c, width, height)
            rows, translation, (fx, fy, cx, cy), (x_low, x_high, y_low, y_high) = camera
            depth = _dot(rows[2], mean) + translation[2]
            visible = (depth >= near) & (depth <= far)
            if not any_lane(visible):
                _store_culled(c, first, count, radii, means2d, depths, conics, tiles_per_gauss)
                if antialiased:
                    compensations[c, first : first + count] = 0.0
                continue
            inverse_depth = 1.0 / select(visible, depth, 1.0)
            ratio_x = (_dot(rows[0], mean) + translation[0]) * inverse_depth
            ratio_y = (_dot(rows[1], mean) + translation[1]) * inverse_depth
            row_x, row_y = _jacobian_rows(
                camera,
                inverse_depth,
                minimum(maximum(ratio_x, x_low), x_high),
                minimum(maximum(ratio_y, y_low), y_high),
            )
            u, v = _row_times_matrix(row_x, factor), _row_times_matrix(row_y, factor)
            xx, xy, yy, sharp_determinant, determinant = _image_covariance(u, v, eps2d)
            visible = visible & (determinant > 0.0)
            inverse_determinant = 1.0 / select(visible, determinant, 1.0)
            xx, yy = xx + eps2d, yy + eps2d
            visible_opacity = opacity
            if antialiased:
                compensation = square_root(sharp_determinant * inverse_determinant)
                visible_opacity = opacity * compensation
                store(results, 7 * LANES, compensation)
            visible = visible & (visible_opacity >= MIN_ALPHA)
            reach = square_root(2.0 * log(maximum(visible_opacity * 255.0, 1.0)))
            extent = minimum(reach, MAX_EXTENT)
            radius_x, radius_y = round_up(extent * square_root(xx)), round_up(extent * square_root(yy))
            x, y = ratio_x * fx + cx, ratio_y * fy + cy
            visible = visible & ((radius_x > radius_clip) | (radius_y > radius_clip))
            visible = visible & (x + radius_x > 0.0) & (x - radius_x < width)
            visible = visible & (y + radius_y > 0.0) & (y - radius_y < height)
            left, right = _tiles_between(x, radius_x, tiles_x)
            top, bottom = _tiles_between(y, radius_y, tiles_y)
            store(results, 0, x)
            store(results, LANES, y)
            store(results, 2 * LANES, depth)
            store(results, 3 * LANES, yy * inverse_determinant)
            store(results, 4 * LANES, -xy * inverse_determinant)
            store(results, 5 * LANES, xx * inverse_determinant)
            store(results, 6 * LANES, select(visible, radius_x, 0.0))
            store(results, 8 * LANES, select(visible, radius_y, 0.0))
            for lane in range(count):
                i = first + lane
                seen = results[6 * LANES + lane] > 0.0 or results[8 * LANES + lane] > 0.0
                radii[c, i, 0], radii[c, i, 1] = (
                    np.int32(results[6 * LANES + lane]),
                    np.int32(results[8 * LANES + lane]),
                )
                for k in range(2):
                    means2d[c, i, k] = results[k * LANES + lane] if seen else np.float32(0.0)
                depths[c, i] = results[2 * LANES + lane] if seen else np.float32(0.0)
                for k in range(3):
                    conics[c, i, k] = results[(3 + k) * LANES + lane] if seen else np.float32(0.0)
                if antialiased:
                    compensations[c, i] = results[7 * LANES + lane] if seen else np.float32(0.0)
            store(results, 0, select(visible, (right - left) * (bottom - top), 0.0))
            for lane in range(count):
                tiles_per_gauss[c, first + lane] = np.int32(results[lane])


@njit(**KERNEL_OPTIONS)
def _store_culled(c, first, count, radii, means2d, depths, conics, tiles_per_gauss):
    for i in range(first, first + count):
        radii[c, i, 0], radii[c, i, 1] = 0, 0
        means2d[c, i, 0], means2d[c, i, 1] = 0.0, 0.0
        depths[c, i] = 0.0
        conics[c, i, 0], conics[c, i, 1], conics[c, i, 2] = 0.0, 0.0, 0.0
        tiles_per_gauss[c, i] = 0


@njit(**KERNEL_OPTIONS)
def _load_gradients(
    c, first, count, radii, grad_means2d, grad_depths, grad_conics, grad_compensations, antialiased, buffer
):
    """Transpose the gradients of up to 16 Gaussians; culled ones count as zero. Returns whether any is visible."""
    any_visible = False
    for lane in range(LANES):
        i = first + lane
        if lane < count and radii[c, i, 0] > 0:
            any_visible = True
            buffer[lane], buffer[LANES + lane] = grad_means2d[c, i, 0], grad_means2d[c, i, 1]
            buffer[2 * LANES + lane] = grad_depths[c, i]
            for k in range(3):
                buffer[(3 + k) * LANES + lane] = grad_conics[c, i, k]
            buffer[6 * LANES + lane] = grad_compensations[c, i] if antialiased else np.float32(0.0)
            buffer[7 * LANES + lane] = 1.0
        else:
            for k in range(8):
                buffer[k * LANES + lane] = 0.0
    return any_visible


@njit(**KERNEL_OPTIONS)
def _covariance_gradient(conic, grad_conic):
    """Gradient with respect to (xx, xy, yy) of a covariance, given that of its inverse: -Q G Q."""
    a, b, c = conic
    grad_a, half_grad_b, grad_c = grad_conic[0], 0.5 * grad_conic[1], grad_conic[2]
    top = (a * grad_a + b * half_grad_b, a * half_grad_b + b * grad_c)
    bottom = (b * grad_a + c * half_grad_b, b * half_grad_b + c * grad_c)
    return -(top[0] * a + top[1] * b), -2.0 * (top[0] * b + top[1] * c), -(bottom[0] * b + bottom[1] * c)


@njit(**KERNEL_OPTIONS)
def _add(a, b):
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2])


@njit(**KERNEL_OPTIONS)
def _add_outer(matrix, column, row):
    return (
        matrix[0] + column[0] * row[0],
        matrix[1] + column[0] * row[1],
        matrix[2] + column[0] * row[2],
        matrix[3] + column[1] * row[0],
        matrix[4] + column[1] * row[1],
        matrix[5] + column[1] * row[2],
        matrix[6] + column[2] * row[0],
        matrix[7] + column[2] * row[1],
        matrix[8] + column[2] * row[2],
    )


@njit(**KERNEL_OPTIONS)
def _row_times_rows(row, rows):
    return (
        row[0] * rows[0][0] + row[1] * rows[1][0] + row[2] * rows[2][0],
        row[0] * rows[0][1] + row[1] * rows[1][1] + row[2] * rows[2][1],
        row[0] * rows[0][2] + row[1] * rows[1][2] + row[2] * rows[2][2],
    )


@njit(**KERNEL_OPTIONS)
def _column_dot(a, b, column):
    return a[column] * b[column] + a[column + 3] * b[column + 3] + a[column + 6] * b[column + 6]


@njit(**KERNEL_OPTIONS)
def _quaternion_gradient(unit, inverse_norm, grad):
    """Gradient with respect to the raw quaternion, given that of its rotation matrix."""
    w, x, y, z = unit
    grad_w = 2.0 * (x * (grad[7] - grad[5]) + y * (grad[2] - grad[6]) + z * (grad[3] - grad[1]))
    grad_x = 2.0 * (
        w * (grad[7] - grad[5])
        + y * (grad[1] + grad[3])
        + z * (grad[2] + grad[6])
        - 2.0 * x * (grad[4] + grad[8])
    )
    grad_y = 2.0 * (
        w * (grad[2] - grad[6])
        + x * (grad[1] + grad[3])
        + z * (grad[5] + grad[7])
        - 2.0 * y * (grad[0] + grad[8])
    )
    grad_z = 2.0 * (
        w * (grad[3] - grad[1])
        + x * (grad[2] + grad[6])
        + y * (grad[5] + grad[7])
        - 2.0 * z * (grad[0] + grad[4])
    )
    # The norm carries no rotation: take out the radial part.
    radial = grad_w * w + grad_x * x + grad_y * y + grad_z * z
    return (
        (grad_w - radial * w) * inverse_norm,
        (grad_x - radial * x) * inverse_norm,
        (grad_y - radial * y) * inverse_norm,
        (grad_z - radial * z) * inverse_norm,
    )


@njit(**KERNEL_OPTIONS)
def project_backward(
    begin,
    end,
    means,  # [N, 3]
    quats,  # [N, 4]
    scales,  # [N, 3]
    viewmats,  # [C, 4, 4]
    intrinsics,  # [C, 3, 3]
    size,  # (width, height) pixels
    eps2d,
    antialiased,
    radii,  # [C, N, 2] int32
    grad_means2d,  # [C, N, 2]
    grad_depths,  # [C, N]
    grad_conics,  # [C, N, 3]
    grad_compensations,  # [C, N] read if antialiased
    grad_means,  # [N, 3] written
    grad_quats,  # [N, 4] written
    grad_scales,  # [N, 3] written
):
    """Gradients of Gaussians ``begin`` to ``end``, summed over the cameras in order."""
    width, height = np.float32(size[0]), np.float32(size[1])
    parameters = np.empty(_NUM_PARAMETERS * LANES, np.float32)
    gradients = np.empty(10 * LANES, np.float32)
    zero = broadcast(0.0)
    for first in range(begin, end, LANES):
        count = min(LANES, end - first)
        _load_parameters(means, quats, scales, scales[:, 0], first, count, parameters)
        mean = (load(parameters, 0), load(parameters, LANES), load(parameters, 2 * LANES))
        scale = (load(parameters, 7 * LANES), load(parameters, 8 * LANES), load(parameters, 9 * LANES))
        unit, inverse_norm, rotation = _rotation(parameters)
        factor = _scale_columns(rotation, scale)
        grad_mean = (zero, zero, zero)
        grad_factor = (zero, zero, zero, zero, zero, zero, zero, zero, zero)
        for c in range(viewmats.shape[0]):
            any_visible = _load_gradients(
                c,
                first,
                count,
                radii,
                grad_means2d,
                grad_depths,
                grad_conics,
                grad_compensations,
                antialiased,
                gradients,
            )
            if not any_visible:
                continue
            camera = _camera(viewmats, intrinsics, c, width, height)
            rows, translation, (fx, fy, _, _), (x_low, x_high, y_low, y_high) = camera
            depth = _dot(rows[2], mean) + translation[2]
            visible = load(gradients, 7 * LANES) > 0.0
            inverse_depth = 1.0 / select(visible, depth, 1.0)
            ratio_x = (_dot(rows[0], mean) + translation[0]) * inverse_depth
            ratio_y = (_dot(rows[1], mean) + translation[1]) * inverse_depth
            clamped_x = minimum(maximum(ratio_x, x_low), x_high)
            clamped_y = minimum(maximum(ratio_y, y_low), y_high)
            row_x, row_y = _jacobian_rows(camera, inverse_depth, clamped_x, clamped_y)
            u, v = _row_times_matrix(row_x, factor), _row_times_matrix(row_y, factor)
            xx, xy, yy, sharp_determinant, determinant = _image_covariance(u, v, eps2d)
            inverse_determinant = 1.0 / select(visible, determinant, 1.0)
            conic = (
                (yy + eps2d) * inverse_determinant,
                -xy * inverse_determinant,
                (xx + eps2d) * inverse_determinant,
            )
            grad_conic = (load(gradients, 3 * LANES), load(gradients, 4 * LANES), load(gradients, 5 * LANES))
            grad_xx, grad_xy, grad_yy = _covariance_gradient(conic, grad_conic)
            if antialiased:
                # compensation^2 = sharp_determinant / determinant.
                ratio = sharp_determinant * inverse_determinant
                compensation = square_root(ratio)
                usable = visible & (compensation > 0.0)
                grad_ratio = select(
                    usable, load(gradients, 6 * LANES) * 0.5 / select(usable, compensation, 1.0), 0.0
                )
                grad_ratio = grad_ratio * inverse_determinant
                grad_xx = grad_xx + grad_ratio * (yy - ratio * (yy + eps2d))
                grad_yy = grad_yy + grad_ratio * (xx - ratio * (xx + eps2d))
                grad_xy = grad_xy - 2.0 * grad_ratio * xy * (1.0 - ratio)
            grad_u = (
                2.0 * grad_xx * u[0] + grad_xy * v[0],
                2.0 * grad_xx * u[1] + grad_xy * v[1],
                2.0 * grad_xx * u[2] + grad_xy * v[2],
            )
            grad_v = (
                2.0 * grad_yy * v[0] + grad_xy * u[0],
                2.0 * grad_yy * v[1] + grad_xy * u[1],
                2.0 * grad_yy * v[2] + grad_xy * u[2],
            )
            grad_factor = _add_outer(_add_outer(grad_factor, row_x, grad_u), row_y, grad_v)
            grad_row_x, grad_row_y = (
                _matrix_times_column(factor, grad_u),
                _matrix_times_column(factor, grad_v),
            )
            # The rows are fx / z (V0 - clamped_x V2) and fy / z (V1 - clamped_y V2).
            grad_j02, grad_j12 = _dot(grad_row_x, rows[2]), _dot(grad_row_y, rows[2])
            grad_scale_x = fx * (_dot(grad_row_x, rows[0]) - clamped_x * grad_j02)
            grad_scale_y = fy * (_dot(grad_row_y, rows[1]) - clamped_y * grad_j12)
            inside_x, inside_y = (
                (ratio_x >= x_low) & (ratio_x <= x_high),
                (ratio_y >= y_low) & (ratio_y <= y_high),
            )
            grad_ratio_x = fx * (load(gradients, 0) - select(inside_x, inverse_depth * grad_j02, 0.0))
            grad_ratio_y = fy * (load(gradients, LANES) - select(inside_y, inverse_depth * grad_j12, 0.0))
            grad_x, grad_y = grad_ratio_x * inverse_depth, grad_ratio_y * inverse_depth
            grad_inverse_depth = grad_scale_x + grad_scale_y
            grad_z = load(gradients, 2 * LANES) - grad_x * ratio_x - grad_y * ratio_y
            grad_z = grad_z - grad_inverse_depth * inverse_depth * inverse_depth
            grad_mean = _add(grad_mean, _row_times_rows((grad_x, grad_y, grad_z), rows))
        grad_rotation = _scale_columns(grad_factor, scale)
        grad_quat = _quaternion_gradient(unit, inverse_norm, grad_rotation)
        for k in range(3):
            store(gradients, k * LANES, grad_mean[k])
            store(gradients, (3 + k) * LANES, _column_dot(grad_factor, rotation, k))
        for k in range(4):
            store(gradients, (6 + k) * LANES, grad_quat[k])
        for lane in range(count):
            for k in range(3):
                grad_means[first + lane, k] = gradients[k * LANES + lane]
                grad_scales[first + lane, k] = gradients[(3 + k) * LANES + lane]
            for k in range(4):
                grad_quats[first + lane, k] = gradients[(6 + k) * LANES + lane]
