"""EWA projection of 3D Gaussians to the image plane, and its gradient, one Gaussian per lane.

After gsplat 1.5.3 ``csrc/ProjectionEWA3DGSFused.cu`` and ``include/Utils.cuh``, culling rules included. With the
quaternion's rotation R, scales s, M = R diag(s), view rotation V and the projection's Jacobian J, the image
covariance is (J V M)(J V M)^T. The rows u, v of J V M give its determinant as |u x v|^2: needles cancel nothing.

Letters: C cameras, N Gaussians. A 3x3 matrix is a flat tuple of 9, row by row.
"""

from __future__ import annotations

import numpy as np

from sdi_gs.rasterize.kernels.jit import kernel
from sdi_gs.rasterize.kernels.simd import (
    LANES,
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
# Pixels; the sum of two fits an int32.
_MAX_RADIUS = 1e9

# Vectors of a block's parameters: mean, quaternion (at 3), scale (at 7), opacity.
_NUM_PARAMETERS = 11
# Vectors of a block's results in one camera.
_X, _Y, _DEPTH, _CONIC, _, _, _COMPENSATION, _RADIUS_X, _RADIUS_Y, _NUM_TILES = range(10)
_NUM_RESULTS = 10
# Vectors of a block's gradients: on the way in those of x, y, depth, conic (at 3) and compensation, and who is
# drawn; on the way out those of mean, scale (at 3) and quaternion (at 6).
_NUM_GRADIENTS = 10


@kernel
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@kernel
def _row_times_matrix(row, matrix):
    return (
        row[0] * matrix[0] + row[1] * matrix[3] + row[2] * matrix[6],
        row[0] * matrix[1] + row[1] * matrix[4] + row[2] * matrix[7],
        row[0] * matrix[2] + row[1] * matrix[5] + row[2] * matrix[8],
    )


@kernel
def _matrix_times_column(matrix, column):
    return (
        matrix[0] * column[0] + matrix[1] * column[1] + matrix[2] * column[2],
        matrix[3] * column[0] + matrix[4] * column[1] + matrix[5] * column[2],
        matrix[6] * column[0] + matrix[7] * column[1] + matrix[8] * column[2],
    )


@kernel
def _camera(viewmats, intrinsics, camera, size):
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
    width, height = np.float32(size[0]), np.float32(size[1])
    # The Jacobian is taken no further out than 0.3 half-images beyond each border.
    margin_x, margin_y = np.float32(0.15) * width / fx, np.float32(0.15) * height / fy
    limits = (
        -cx / fx - margin_x,
        (width - cx) / fx + margin_x,
        -cy / fy - margin_y,
        (height - cy) / fy + margin_y,
    )
    return rows, translation, (fx, fy, cx, cy), limits


@kernel
def _load_parameters(means, quats, scales, opacities, first, count, buffer):
    """Transpose up to a vector of Gaussians into ``buffer``, one vector per parameter; empty lanes are harmless."""
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


@kernel
def _load_row(buffer, first):
    """Three consecutive vectors."""
    return load(buffer, first * LANES), load(buffer, (first + 1) * LANES), load(buffer, (first + 2) * LANES)


@kernel
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


@kernel
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


@kernel
def _jacobian_rows(camera, inverse_depth, ratio_x, ratio_y):
    """The two rows of J V, with J taken at the given x/z and y/z."""
    rows, _, (fx, fy, _, _), _ = camera
    scale_x, scale_y = fx * inverse_depth, fy * inverse_depth
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
def _image_ratios(camera, mean, inverse_depth):
    """x/z and y/z of the centre, and the same clamped for the Jacobian."""
    rows, translation, _, (x_low, x_high, y_low, y_high) = camera
    ratio_x = (_dot(rows[0], mean) + translation[0]) * inverse_depth
    ratio_y = (_dot(rows[1], mean) + translation[1]) * inverse_depth
    clamped_x, clamped_y = minimum(maximum(ratio_x, x_low), x_high), minimum(maximum(ratio_y, y_low), y_high)
    return ratio_x, ratio_y, clamped_x, clamped_y


@kernel
def _image_covariance(u, v, eps2d, visible):
    """Covariance (xx, xy, yy) with blur, the inverse of its determinant, and the determinant without blur.

    Where nothing is visible the inverse is harmless.
    """
    xx, xy, yy = _dot(u, u), _dot(u, v), _dot(v, v)
    cross_x, cross_y, cross_z = u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]
    sharp_determinant = cross_x * cross_x + cross_y * cross_y + cross_z * cross_z
    determinant = sharp_determinant + eps2d * (xx + yy) + eps2d * eps2d
    inverse_determinant = 1.0 / select(visible & (determinant > 0.0), determinant, 1.0)
    return (xx + eps2d, xy, yy + eps2d), inverse_determinant, sharp_determinant, determinant > 0.0


@kernel
def _num_tiles(center, radius, num_tiles):
    """How many tiles a footprint's box covers along one axis."""
    low, high = round_down((center - radius) * (1.0 / TILE_SIZE)), round_up((center + radius) * (1.0 / TILE_SIZE))
    return minimum(maximum(high, 0.0), num_tiles) - minimum(maximum(low, 0.0), num_tiles)


@kernel
def _footprint(center, covariance, opacity, visible, size, radius_clip):
    """Radii in pixels and number of tiles of the box, 0 where gsplat's rule culls."""
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
    eps2d, near, far, radius_clip = limits
    parameters = np.empty(_NUM_PARAMETERS * LANES, np.float32)
    results = np.empty(_NUM_RESULTS * LANES, np.float32)
    zero = np.float32(0.0)
    for first in range(begin, end, LANES):
        count = min(LANES, end - first)
        _load_parameters(means, quats, scales, opacities, first, count, parameters)
        mean, scale, opacity = _load_row(parameters, 0), _load_row(parameters, 7), load(parameters, 10 * LANES)
        factor = _scale_columns(_rotation(parameters)[2], scale)
        for c in range(viewmats.shape[0]):
            camera = _camera(viewmats, intrinsics, c, size)
            rows, translation, (fx, fy, cx, cy), _ = camera
            depth = _dot(rows[2], mean) + translation[2]
            visible = (depth >= near) & (depth <= far)
            inverse_depth = 1.0 / select(visible, depth, 1.0)
            ratio_x, ratio_y, clamped_x, clamped_y = _image_ratios(camera, mean, inverse_depth)
            row_x, row_y = _jacobian_rows(camera, inverse_depth, clamped_x, clamped_y)
            u, v = _row_times_matrix(row_x, factor), _row_times_matrix(row_y, factor)
            covariance, inverse_determinant, sharp_determinant, regular = _image_covariance(u, v, eps2d, visible)
            compensation = broadcast(1.0)
            if antialiased:
                compensation = square_root(sharp_determinant * inverse_determinant)
            x, y = ratio_x * fx + cx, ratio_y * fy + cy
            radius_x, radius_y, num_tiles = _footprint(
                (x, y), covariance, opacity * compensation, visible & regular, size, radius_clip
            )
            store(results, _X * LANES, x)
            store(results, _Y * LANES, y)
            store(results, _DEPTH * LANES, depth)
            store(results, _CONIC * LANES, covariance[2] * inverse_determinant)
            store(results, (_CONIC + 1) * LANES, -covariance[1] * inverse_determinant)
            store(results, (_CONIC + 2) * LANES, covariance[0] * inverse_determinant)
            store(results, _COMPENSATION * LANES, compensation)
            store(results, _RADIUS_X * LANES, radius_x)
            store(results, _RADIUS_Y * LANES, radius_y)
            store(results, _NUM_TILES * LANES, num_tiles)
            for lane in range(count):
                i = first + lane
                radii[c, i, 0] = np.int32(results[_RADIUS_X * LANES + lane])
                radii[c, i, 1] = np.int32(results[_RADIUS_Y * LANES + lane])
                drawn = radii[c, i, 0] + radii[c, i, 1] > 0
                tiles_per_gauss[c, i] = np.int32(results[_NUM_TILES * LANES + lane])
                means2d[c, i, 0] = results[_X * LANES + lane] if drawn else zero
                means2d[c, i, 1] = results[_Y * LANES + lane] if drawn else zero
                depths[c, i] = results[_DEPTH * LANES + lane] if drawn else zero
                for k in range(3):
                    conics[c, i, k] = results[(_CONIC + k) * LANES + lane] if drawn else zero
                if antialiased:
                    compensations[c, i] = results[_COMPENSATION * LANES + lane] if drawn else zero


@kernel
def _load_gradients(c, first, count, radii, grad_means2d, grad_depths, grad_conics, grad_compensations, buffer):
    """Transpose the gradients of up to a vector of Gaussians and a flag of who is drawn; whether anyone is."""
    any_visible = False
    for lane in range(LANES):
        i = first + lane
        if lane < count and radii[c, i, 0] + radii[c, i, 1] > 0:
            any_visible = True
            buffer[lane], buffer[LANES + lane] = grad_means2d[c, i, 0], grad_means2d[c, i, 1]
            buffer[2 * LANES + lane] = grad_depths[c, i]
            for k in range(3):
                buffer[(3 + k) * LANES + lane] = grad_conics[c, i, k]
            if grad_compensations.shape[1] > 0:
                buffer[6 * LANES + lane] = grad_compensations[c, i]
            buffer[7 * LANES + lane] = 1.0
        else:
            for k in range(8):
                buffer[k * LANES + lane] = 0.0
    return any_visible


@kernel
def _covariance_gradient(covariance, inverse_determinant, grad_conic):
    """Gradient with respect to (xx, xy, yy), given that of the inverse Q: -Q G Q, G symmetric."""
    a, b, c = (
        covariance[2] * inverse_determinant,
        -covariance[1] * inverse_determinant,
        covariance[0] * inverse_determinant,
    )
    grad_a, half_grad_b, grad_c = grad_conic[0], 0.5 * grad_conic[1], grad_conic[2]
    top = (a * grad_a + b * half_grad_b, a * half_grad_b + b * grad_c)
    bottom = (b * grad_a + c * half_grad_b, b * half_grad_b + c * grad_c)
    return -(top[0] * a + top[1] * b), -2.0 * (top[0] * b + top[1] * c), -(bottom[0] * b + bottom[1] * c)


@kernel
def _compensation_gradient(covariance, inverse_determinant, sharp_determinant, eps2d, grad):
    """Gradient with respect to (xx, xy, yy) of the square root of the determinants' ratio."""
    xx, xy, yy = covariance
    ratio = sharp_determinant * inverse_determinant
    compensation = square_root(ratio)
    grad_ratio = select(compensation > 0.0, 0.5 * grad / select(compensation > 0.0, compensation, 1.0), 0.0)
    scale = grad_ratio * inverse_determinant
    return scale * (yy - eps2d - ratio * yy), -2.0 * scale * xy * (1.0 - ratio), scale * (xx - eps2d - ratio * xx)


@kernel
def _position_gradient(camera, inverse_depth, ratios, grad_row_x, grad_row_y, grad_image):
    """Gradient with respect to the centre in camera axes, given those of J V's rows and of (x, y, depth)."""
    rows, _, (fx, fy, _, _), (x_low, x_high, y_low, y_high) = camera
    ratio_x, ratio_y, clamped_x, clamped_y = ratios
    # The rows are fx / z (V0 - clamped_x V2) and fy / z (V1 - clamped_y V2).
    grad_clamped_x, grad_clamped_y = (
        -inverse_depth * _dot(grad_row_x, rows[2]),
        -inverse_depth * _dot(grad_row_y, rows[2]),
    )
    inside_x, inside_y = (ratio_x >= x_low) & (ratio_x <= x_high), (ratio_y >= y_low) & (ratio_y <= y_high)
    grad_x = fx * inverse_depth * (grad_image[0] + select(inside_x, grad_clamped_x, 0.0))
    grad_y = fy * inverse_depth * (grad_image[1] + select(inside_y, grad_clamped_y, 0.0))
    along_x = inverse_depth * _dot(grad_row_x, rows[0]) + clamped_x * grad_clamped_x
    along_y = inverse_depth * _dot(grad_row_y, rows[1]) + clamped_y * grad_clamped_y
    grad_z = grad_image[2] - grad_x * ratio_x - grad_y * ratio_y - inverse_depth * (fx * along_x + fy * along_y)
    return grad_x, grad_y, grad_z


@kernel
def _add(a, b):
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2])


@kernel
def _times(factor, a):
    return (factor * a[0], factor * a[1], factor * a[2])


@kernel
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


@kernel
def _row_times_rows(row, rows):
    return (
        row[0] * rows[0][0] + row[1] * rows[1][0] + row[2] * rows[2][0],
        row[0] * rows[0][1] + row[1] * rows[1][1] + row[2] * rows[2][1],
        row[0] * rows[0][2] + row[1] * rows[1][2] + row[2] * rows[2][2],
    )


@kernel
def _column_dot(a, b, column):
    return a[column] * b[column] + a[column + 3] * b[column + 3] + a[column + 6] * b[column + 6]


@kernel
def _quaternion_gradient(unit, inverse_norm, grad):
    """Gradient with respect to the raw quaternion, given that of its rotation matrix."""
    w, x, y, z = unit
    grad_w = 2.0 * (x * (grad[7] - grad[5]) + y * (grad[2] - grad[6]) + z * (grad[3] - grad[1]))
    grad_x = 2.0 * (
        w * (grad[7] - grad[5]) + y * (grad[1] + grad[3]) + z * (grad[2] + grad[6]) - 2.0 * x * (grad[4] + grad[8])
    )
    grad_y = 2.0 * (
        w * (grad[2] - grad[6]) + x * (grad[1] + grad[3]) + z * (grad[5] + grad[7]) - 2.0 * y * (grad[0] + grad[8])
    )
    grad_z = 2.0 * (
        w * (grad[3] - grad[1]) + x * (grad[2] + grad[6]) + y * (grad[5] + grad[7]) - 2.0 * z * (grad[0] + grad[4])
    )
    # The norm carries no rotation: take out the radial part.
    radial = grad_w * w + grad_x * x + grad_y * y + grad_z * z
    return (
        (grad_w - radial * w) * inverse_norm,
        (grad_x - radial * x) * inverse_norm,
        (grad_y - radial * y) * inverse_norm,
        (grad_z - radial * z) * inverse_norm,
    )


@kernel
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
    parameters = np.empty(_NUM_PARAMETERS * LANES, np.float32)
    gradients = np.empty(_NUM_GRADIENTS * LANES, np.float32)
    zero = broadcast(0.0)
    for first in range(begin, end, LANES):
        count = min(LANES, end - first)
        _load_parameters(means, quats, scales, scales[:, 0], first, count, parameters)
        mean, scale = _load_row(parameters, 0), _load_row(parameters, 7)
        unit, inverse_norm, rotation = _rotation(parameters)
        factor = _scale_columns(rotation, scale)
        grad_mean = (zero, zero, zero)
        grad_factor = (zero, zero, zero, zero, zero, zero, zero, zero, zero)
        for c in range(viewmats.shape[0]):
            if not _load_gradients(
                c, first, count, radii, grad_means2d, grad_depths, grad_conics, grad_compensations, gradients
            ):
                continue
            camera = _camera(viewmats, intrinsics, c, size)
            visible = load(gradients, 7 * LANES) > 0.0
            depth = _dot(camera[0][2], mean) + camera[1][2]
            inverse_depth = 1.0 / select(visible, depth, 1.0)
            ratios = _image_ratios(camera, mean, inverse_depth)
            row_x, row_y = _jacobian_rows(camera, inverse_depth, ratios[2], ratios[3])
            u, v = _row_times_matrix(row_x, factor), _row_times_matrix(row_y, factor)
            covariance, inverse_determinant, sharp_determinant, _ = _image_covariance(u, v, eps2d, visible)
            grad_covariance = _covariance_gradient(covariance, inverse_determinant, _load_row(gradients, 3))
            if antialiased:
                grad_covariance = _add(
                    grad_covariance,
                    _compensation_gradient(
                        covariance, inverse_determinant, sharp_determinant, eps2d, load(gradients, 6 * LANES)
                    ),
                )
            grad_u = _add(_times(2.0 * grad_covariance[0], u), _times(grad_covariance[1], v))
            grad_v = _add(_times(2.0 * grad_covariance[2], v), _times(grad_covariance[1], u))
            grad_factor = _add_outer(_add_outer(grad_factor, row_x, grad_u), row_y, grad_v)
            grad_row_x, grad_row_y = _matrix_times_column(factor, grad_u), _matrix_times_column(factor, grad_v)
            grad_position = _position_gradient(
                camera, inverse_depth, ratios, grad_row_x, grad_row_y, _load_row(gradients, 0)
            )
            grad_mean = _add(grad_mean, _row_times_rows(grad_position, camera[0]))
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
