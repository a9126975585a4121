"""Gradient of ``projection.project``, one Gaussian per lane.

Letters: C cameras, N Gaussians, B blocks of LANES Gaussians.
"""

from __future__ import annotations

import numpy as np

from sdi_gs.rasterize.kernels.channels import (
    FOUR,
    THREE,
    TWO,
    channel_load,
    load_columns,
    store_columns,
    store_lane_sums,
)
from sdi_gs.rasterize.kernels.geometry import (
    add,
    add_outer,
    column_dot,
    dot,
    load_row,
    matrix_times_column,
    row_times_matrix,
    row_times_rows,
    scale_columns,
    times,
)
from sdi_gs.rasterize.kernels.jit import kernel
from sdi_gs.rasterize.kernels.projection import (
    NUM_PARAMETERS,
    camera_of,
    covariance_factor,
    image_covariance,
    image_place,
    jacobian_rows,
    load_parameters,
    rotation,
)
from sdi_gs.rasterize.kernels.simd import LANES, any_lane, broadcast, has_bits, load, select, square_root, store

# Vectors of a block's gradients. Read: x, y, depth, conic (at 3), compensation, and the flag "drawn". Written over
# them: mean, then scale (at 3) and quaternion (at 6), or covariance (at 3).
_NUM_GRADIENTS = 10
VIEW_LENGTH = 16
"""Floats of a camera's gradient from one block: V row by row, then the translation; the last 4 are undefined."""


@kernel
def _load_gradients(c, first, count, radii, grad_means2d, grad_depths, grad_conics, grad_compensations, buffer):
    """Transpose the gradients of up to ``LANES`` Gaussians and their flags "drawn"; return whether any is drawn."""
    if count == LANES:
        item = c * radii.shape[1] + first
        radius = load_columns(radii, item, TWO)
        drawn = has_bits(radius[0]) | has_bits(radius[1])
        center, conic = load_columns(grad_means2d, item, TWO), load_columns(grad_conics, item, THREE)
        store(buffer, 0, select(drawn, center[0], 0.0))
        store(buffer, LANES, select(drawn, center[1], 0.0))
        store(buffer, 2 * LANES, select(drawn, load(grad_depths, item), 0.0))
        for k in range(3):
            store(buffer, (3 + k) * LANES, select(drawn, conic[k], 0.0))
        if grad_compensations.shape[1] > 0:
            store(buffer, 6 * LANES, select(drawn, load(grad_compensations, item), 0.0))
        store(buffer, 7 * LANES, select(drawn, 1.0, 0.0))
        return any_lane(drawn)
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
    """Return the gradient with respect to (xx, xy, yy): -Q G Q for the inverse Q and its symmetric gradient G."""
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
    """Return the gradient with respect to (xx, xy, yy) of the square root of the determinants' ratio."""
    xx, xy, yy = covariance
    ratio = sharp_determinant * inverse_determinant
    compensation = square_root(ratio)
    grad_ratio = select(compensation > 0.0, 0.5 * grad / select(compensation > 0.0, compensation, 1.0), 0.0)
    scale = grad_ratio * inverse_determinant
    return scale * (yy - eps2d - ratio * yy), -2.0 * scale * xy * (1.0 - ratio), scale * (xx - eps2d - ratio * xx)


@kernel
def _position_gradient(camera, place, grad_row_x, grad_row_y, grad_image, ortho):
    """Return the gradient with respect to the centre in camera axes, from those of J V's rows and (x, y, depth)."""
    rows, _, (fx, fy, _, _), (x_low, x_high, y_low, y_high) = camera
    scale, ratio_x, ratio_y, clamped_x, clamped_y = place
    if len(ortho) > 0:
        gradient = (fx * grad_image[0], fy * grad_image[1], grad_image[2])
    else:
        # The rows are fx / z (V0 - clamped_x V2) and fy / z (V1 - clamped_y V2).
        grad_clamped_x, grad_clamped_y = -scale * dot(grad_row_x, rows[2]), -scale * dot(grad_row_y, rows[2])
        inside_x, inside_y = (ratio_x >= x_low) & (ratio_x <= x_high), (ratio_y >= y_low) & (ratio_y <= y_high)
        grad_x = fx * scale * (grad_image[0] + select(inside_x, grad_clamped_x, 0.0))
        grad_y = fy * scale * (grad_image[1] + select(inside_y, grad_clamped_y, 0.0))
        along_x = scale * dot(grad_row_x, rows[0]) + clamped_x * grad_clamped_x
        along_y = scale * dot(grad_row_y, rows[1]) + clamped_y * grad_clamped_y
        grad_z = grad_image[2] - grad_x * ratio_x - grad_y * ratio_y - scale * (fx * along_x + fy * along_y)
        gradient = (grad_x, grad_y, grad_z)
    return gradient


@kernel
def _store_view_gradient(camera, place, mean, visible, grad_row_x, grad_row_y, grad_position, sums, start):
    """Write the block's gradient of V and of the translation to ``sums``, from ``start`` on."""
    _, _, (fx, fy, _, _), _ = camera
    scale, _, _, clamped_x, clamped_y = place
    # Gaussians that are not drawn may have any values, infinities included, which must not reach the sums.
    nothing = broadcast(0.0)
    x, y, z = select(visible, mean[0], nothing), select(visible, mean[1], nothing), select(visible, mean[2], nothing)
    scale_x, scale_y = select(visible, fx * scale, nothing), select(visible, fy * scale, nothing)
    row_x, row_y = times(scale_x, grad_row_x), times(scale_y, grad_row_y)
    row_z = add(times(-clamped_x, row_x), times(-clamped_y, row_y))
    store_lane_sums(
        sums,
        start,
        (
            row_x[0] + grad_position[0] * x,
            row_x[1] + grad_position[0] * y,
            row_x[2] + grad_position[0] * z,
            row_y[0] + grad_position[1] * x,
            row_y[1] + grad_position[1] * y,
            row_y[2] + grad_position[1] * z,
            row_z[0] + grad_position[2] * x,
            row_z[1] + grad_position[2] * y,
            row_z[2] + grad_position[2] * z,
            *grad_position,
        ),
    )


@kernel
def _quaternion_gradient(unit, inverse_norm, grad):
    """Return the gradient with respect to the unnormalised quaternion, from that of its rotation matrix."""
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
    # The rotation does not depend on the quaternion's norm: remove the radial part.
    radial = grad_w * w + grad_x * x + grad_y * y + grad_z * z
    return (
        (grad_w - radial * w) * inverse_norm,
        (grad_x - radial * x) * inverse_norm,
        (grad_y - radial * y) * inverse_norm,
        (grad_z - radial * z) * inverse_norm,
    )


@kernel
def _store_shape_gradient(grad_factor, parameters, gradients):
    """Convert the gradient of R diag(s) to those of the scales and the quaternion, and write them."""
    unit, inverse_norm, matrix = rotation(parameters)
    grad_quat = _quaternion_gradient(unit, inverse_norm, scale_columns(grad_factor, load_row(parameters, 7)))
    for k in range(3):
        store(gradients, (3 + k) * LANES, column_dot(grad_factor, matrix, k))
    for k in range(4):
        store(gradients, (6 + k) * LANES, grad_quat[k])


@kernel
def _store_covariance_gradient(grad, gradients):
    """Write the gradient of the upper triangle; an entry off the diagonal sums the gradients of its two copies."""
    upper = (grad[0], grad[1] + grad[3], grad[2] + grad[6], grad[4], grad[5] + grad[7], grad[8])
    for k in range(6):
        store(gradients, (3 + k) * LANES, upper[k])


@kernel
def project_backward(
    begin,
    end,
    means,  # [N, 3]
    quats,  # [N, 4]
    scales,  # [N, 3]
    covars,  # [N, 6]
    from_covars,
    viewmats,  # [C, 4, 4]
    intrinsics,  # [C, 3, 3]
    size,  # (width, height) pixels
    eps2d,
    antialiased,
    ortho,
    radii,  # [C, N, 2] int32
    grad_means2d,  # [C, N, 2]
    grad_depths,  # [C, N]
    grad_conics,  # [C, N, 3]
    grad_compensations,  # [C, N] read if antialiased
    grad_means,  # [N, 3] written
    grad_quats,  # [N, 4] written unless from_covars
    grad_scales,  # [N, 3] written unless from_covars
    grad_covars,  # [N, 6] written if from_covars
    for_views,  # a tuple, empty if no camera wants a gradient
    grad_views,  # [B, C, VIEW_LENGTH] zeros, written if for_views: to be summed over the blocks
):
    """Write the gradients of Gaussians ``begin`` to ``end``, summed over the cameras in order."""
    parameters = np.empty(NUM_PARAMETERS * LANES, np.float32)
    gradients = np.empty(_NUM_GRADIENTS * LANES, np.float32)
    flat_views = grad_views.reshape(-1)
    zero = broadcast(0.0)
    for first in range(begin, end, LANES):
        count = min(LANES, end - first)
        load_parameters(means, quats, scales, covars, from_covars, means.reshape(-1), first, count, parameters)
        mean = load_row(parameters, 0)
        factor = covariance_factor(parameters, from_covars)
        grad_mean = (zero, zero, zero)
        # Of the factor or, where they are given, of the covariances.
        grad_shape = (zero, zero, zero, zero, zero, zero, zero, zero, zero)
        for c in range(viewmats.shape[0]):
            if not _load_gradients(
                c, first, count, radii, grad_means2d, grad_depths, grad_conics, grad_compensations, gradients
            ):
                continue
            camera = camera_of(viewmats, intrinsics, c, size)
            visible = load(gradients, 7 * LANES) > 0.0
            depth = dot(camera[0][2], mean) + camera[1][2]
            place = image_place(camera, mean, depth, visible, ortho)
            row_x, row_y = jacobian_rows(camera, place[0], place[3], place[4])
            u, v = row_times_matrix(row_x, factor), row_times_matrix(row_y, factor)
            covariance, inverse_determinant, sharp_determinant, _ = image_covariance(u, v, eps2d, visible)
            grad_covariance = _covariance_gradient(covariance, inverse_determinant, load_row(gradients, 3))
            if antialiased:
                grad_covariance = add(
                    grad_covariance,
                    _compensation_gradient(
                        covariance, inverse_determinant, sharp_determinant, eps2d, load(gradients, 6 * LANES)
                    ),
                )
            grad_u = add(times(2.0 * grad_covariance[0], u), times(grad_covariance[1], v))
            grad_v = add(times(2.0 * grad_covariance[2], v), times(grad_covariance[1], u))
            if len(from_covars) > 0:
                half_x = add(times(grad_covariance[0], row_x), times(0.5 * grad_covariance[1], row_y))
                half_y = add(times(grad_covariance[2], row_y), times(0.5 * grad_covariance[1], row_x))
                grad_shape = add_outer(add_outer(grad_shape, row_x, half_x), row_y, half_y)
            else:
                grad_shape = add_outer(add_outer(grad_shape, row_x, grad_u), row_y, grad_v)
            grad_row_x, grad_row_y = matrix_times_column(factor, grad_u), matrix_times_column(factor, grad_v)
            grad_position = _position_gradient(camera, place, grad_row_x, grad_row_y, load_row(gradients, 0), ortho)
            grad_mean = add(grad_mean, row_times_rows(grad_position, camera[0]))
            if len(for_views) > 0:
                start = (first // LANES * viewmats.shape[0] + c) * VIEW_LENGTH
                _store_view_gradient(
                    camera, place, mean, visible, grad_row_x, grad_row_y, grad_position, flat_views, start
                )
        for k in range(3):
            store(gradients, k * LANES, grad_mean[k])
        if len(from_covars) > 0:
            _store_covariance_gradient(grad_shape, gradients)
        else:
            _store_shape_gradient(grad_shape, parameters, gradients)
        if count == LANES and len(from_covars) == 0:
            store_columns(grad_means, first, load_row(gradients, 0))
            store_columns(grad_scales, first, load_row(gradients, 3))
            store_columns(grad_quats, first, channel_load(gradients, 6 * LANES, LANES, FOUR))
            continue
        for lane in range(count):
            for k in range(3):
                grad_means[first + lane, k] = gradients[k * LANES + lane]
            if len(from_covars) > 0:
                for k in range(6):
                    grad_covars[first + lane, k] = gradients[(3 + k) * LANES + lane]
            else:
                for k in range(3):
                    grad_scales[first + lane, k] = gradients[(3 + k) * LANES + lane]
                for k in range(4):
                    grad_quats[first + lane, k] = gradients[(6 + k) * LANES + lane]
