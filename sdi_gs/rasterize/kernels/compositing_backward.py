"""The gradient of compositing, one 16x16 tile at a time; see ``compositing``.

It runs front to back, too. With q the dot product of a Gaussian's colour and the pixel's gradient, it keeps the
remainder, the sum of weight * q over the Gaussians still to come. It starts at the pixel's colour, background
included, times its gradient; over the transmittance, it is the q of all that lies behind.

Letters: I images or C cameras, N Gaussians, H W pixels, M items (a Gaussian in an image), P (Gaussian, tile) pairs, D
channels, R floats of a record, S floats of a pair's sums. ``channels`` is a tuple of length D.
"""

from __future__ import annotations

import numpy as np

from sdi_gs.rasterize.kernels.channels import (
    channel_add_scaled,
    channel_broadcast,
    channel_dot,
    channel_load,
    channel_store,
    channel_zeros,
    load_pixels,
    store_lane_sums,
)
from sdi_gs.rasterize.kernels.jit import kernel
from sdi_gs.rasterize.kernels.projection import MIN_ALPHA, TILE_SIZE
from sdi_gs.rasterize.kernels.simd import (
    LANES,
    absolute,
    broadcast,
    exp2,
    load,
    lowest_bit,
    minimum,
    select,
    store,
)
from sdi_gs.rasterize.kernels.tiles import (
    BLOCK_COLUMNS,
    BLOCK_LEFT,
    BLOCK_ROWS,
    BLOCK_TOP,
    BLOCKS_ACROSS,
    CENTER_X,
    CENTER_Y,
    LOG2_E,
    MAX_ALPHA,
    MOST_SHUFFLED,
    NUM_BLOCKS,
    QUADRATIC_XX,
    QUADRATIC_XY,
    QUADRATIC_YY,
    RECORD_COLOR,
    TILE_PIXELS,
    aligned_floats,
    exponent,
    lane_grid,
    pixel_of,
    row_start,
    tile_place,
)

# Fields of a pair's sums: moments of the gradient of log(alpha), then the gradient of the colour and, where wanted, the
# absolute gradient of the centre along x and y.
MOMENT, MOMENT_X, MOMENT_Y, MOMENT_XX, MOMENT_XY, MOMENT_YY, PAIR_COLOR = range(7)


def pair_length(num_channels: int, *, absgrad: bool) -> int:
    """Return the floats of a pair's sums, in whole vectors."""
    return -(-(PAIR_COLOR + num_channels + 2 * absgrad) // LANES) * LANES


@kernel
def _differentiate_tile(
    first,
    last,
    flatten_ids,
    pair_slots,
    pair_blocks,
    records,
    channels,
    absgrad,
    x0,
    y0,
    planes,
    stops,
    first_slot,
    pair_sums,
):
    """Write the sums of pairs ``first`` to ``last``; ``planes`` hold transmittance, remainder and channel gradients."""
    columns, rows = lane_grid()
    center_x, center_y = np.float32(x0 + 0.5), np.float32(y0 + 0.5)
    flat_records, stride = records.reshape(-1), records.shape[1]
    flat_sums, sums_stride = pair_sums.reshape(-1), pair_sums.shape[1]
    zero = broadcast(0.0)
    for pair in range(first, last):
        bits = np.int64(pair_blocks[pair])
        slot = (np.int64(pair_slots[pair]) - first_slot) * sums_stride
        if bits == 0:
            for part in range(0, sums_stride, LANES):
                store(flat_sums, slot + part, zero)
            continue
        item, number = np.uint32(flatten_ids[pair]), np.float32(pair - first)
        record = records[item]
        left, top = columns - (record[CENTER_X] - center_x), rows - (record[CENTER_Y] - center_y)
        color = channel_broadcast(flat_records, item * stride + RECORD_COLOR, channels)
        m, mx, my, mxx, mxy, myy, absolute_x, absolute_y = zero, zero, zero, zero, zero, zero, zero, zero
        grad_color = channel_zeros(channels)
        while bits != 0:
            block = lowest_bit(bits)
            bits &= bits - 1
            start = block * LANES
            dx, dy = left + BLOCK_LEFT[block], top + BLOCK_TOP[block]
            transmittance = load(planes, start)
            uncut = exp2(exponent(record, dx, dy))
            alpha = minimum(uncut, MAX_ALPHA)
            composited = (alpha >= MIN_ALPHA) & (load(stops, start) > number)
            weight = select(composited, alpha * transmittance, 0.0)
            transmittance = transmittance - weight
            store(planes, start, transmittance)
            pixel_gradient = channel_load(planes, start + 2 * TILE_PIXELS, TILE_PIXELS, channels)
            grad_color = channel_add_scaled(grad_color, weight, pixel_gradient)
            own = channel_dot(color, pixel_gradient)
            remainder = load(planes, start + TILE_PIXELS) - weight * own
            store(planes, start + TILE_PIXELS, remainder)
            # Gradient of log(alpha): what the item shows less what it hides; 0 if alpha was cut.
            slope = weight * (own - remainder / transmittance)
            slope = select(composited & (uncut <= MAX_ALPHA), slope, 0.0)
            slope_x, slope_y = slope * dx, slope * dy
            m, mx, my = m + slope, mx + slope_x, my + slope_y
            mxx, mxy, myy = mxx + slope_x * dx, mxy + slope_x * dy, myy + slope_y * dy
            if len(absgrad) > 0:
                mixed = record[QUADRATIC_XY]
                absolute_x = absolute_x + absolute(slope * (2.0 * record[QUADRATIC_XX] * dx + mixed * dy))
                absolute_y = absolute_y + absolute(slope * (mixed * dx + 2.0 * record[QUADRATIC_YY] * dy))
        sums = (m, mx, my, mxx, mxy, myy)
        if len(absgrad) > 0:
            store_lane_sums(flat_sums, slot, sums + grad_color + (absolute_x, absolute_y))
        else:
            store_lane_sums(flat_sums, slot, sums + grad_color)


@kernel
def _read_tile(image, x0, y0, planes, channels, colors, alphas, grad_colors, grad_alphas):
    """Write the remainders and the gradients of a tile's pixels to their planes; the tile lies inside the image."""
    width, depth = alphas.shape[2], len(channels)
    flat_colors, flat_grad_colors = colors.reshape(-1), grad_colors.reshape(-1)
    flat_alphas, flat_grad_alphas = alphas.reshape(-1), grad_alphas.reshape(-1)
    for block in range(NUM_BLOCKS):
        row, column = y0 + block // BLOCKS_ACROSS * BLOCK_ROWS, x0 + block % BLOCKS_ACROSS * BLOCK_COLUMNS
        pixel, start = (image * alphas.shape[1] + row) * width + column, block * LANES
        (alpha,) = load_pixels(flat_alphas, pixel, width, (0,))
        (grad_alpha,) = load_pixels(flat_grad_alphas, pixel, width, (0,))
        seen = load_pixels(flat_colors, pixel * depth, width * depth, channels)
        gradient = load_pixels(flat_grad_colors, pixel * depth, width * depth, channels)
        store(planes, start + TILE_PIXELS, (alpha - 1.0) * grad_alpha + channel_dot(gradient, seen))
        channel_store(planes, start + 2 * TILE_PIXELS, TILE_PIXELS, gradient)


@kernel
def composite_backward(
    begin,
    step,
    shares,  # [S + 1] first tile of each share
    grid,  # (tiles_x, tiles_y)
    tile_starts,  # [I * tiles + 1]
    flatten_ids,  # [P] int32
    pair_slots,  # [P] int32
    pair_blocks,  # [P] uint32
    stops,  # [I * tiles, TILE_PIXELS]
    records,  # [M, R]
    channels,
    absgrad,  # a tuple, empty for no absolute gradients
    colors,  # [I, H, W, D]
    alphas,  # [I, H, W, 1]
    grad_colors,  # [I, H, W, D]
    grad_alphas,  # [I, H, W, 1]
    first_slot,  # of the first pair of ``pair_sums``
    pair_sums,  # [P, S] written
):
    """Write the pairs' gradient sums of the tiles of shares ``begin``, ``begin + step``, ..."""
    height, width = alphas.shape[1], alphas.shape[2]
    planes = aligned_floats((2 + len(channels)) * TILE_PIXELS)
    for share in range(begin, len(shares) - 1, step):
        for tile in range(shares[share], shares[share + 1]):
            first, last = tile_starts[tile], tile_starts[tile + 1]
            if first == last:
                continue
            image, x0, y0, num_columns, num_rows = tile_place(tile, grid, width, height)
            planes[:TILE_PIXELS] = 1.0
            if len(channels) <= MOST_SHUFFLED and num_columns == TILE_SIZE and num_rows == TILE_SIZE:
                _read_tile(image, x0, y0, planes, channels, colors, alphas, grad_colors, grad_alphas)
            else:
                planes[TILE_PIXELS:] = 0.0
                for row in range(num_rows):
                    start, y = row_start(row), y0 + row
                    row_alphas, row_colors = alphas[image, y, x0:], colors[image, y, x0:]
                    row_grad_alphas, row_grad_colors = grad_alphas[image, y, x0:], grad_colors[image, y, x0:]
                    for column in range(num_columns):
                        pixel = pixel_of(start, column)
                        remainder = (row_alphas[column, 0] - np.float32(1.0)) * row_grad_alphas[column, 0]
                        for k in range(len(channels)):
                            gradient = row_grad_colors[column, k]
                            planes[(2 + k) * TILE_PIXELS + pixel] = gradient
                            remainder += gradient * row_colors[column, k]
                        planes[TILE_PIXELS + pixel] = remainder
            _differentiate_tile(
                first,
                last,
                flatten_ids,
                pair_slots,
                pair_blocks,
                records,
                channels,
                absgrad,
                x0,
                y0,
                planes,
                stops[tile],
                first_slot,
                pair_sums,
            )


@kernel
def gather_gradients(
    begin,
    end,
    cameras,  # (first, last + 1)
    num_gaussians,  # N; items are C times as many
    first_slot,  # of the first pair of ``pair_sums``
    item_starts,  # [M + 1] first pair of each item
    pair_sums,  # [P, S] of these cameras
    conics,  # [C, N, 3]
    opacities,  # [M], or [N] for all cameras alike
    grad_means2d,  # [C, N, 2] written
    grad_conics,  # [C, N, 3] written
    grad_opacities,  # [M] or [N], added to
    grad_colors,  # [M, D] or [N, D], added to
    absgrads,  # [C, N, 2] written, or empty
):
    """Sum the pairs of Gaussians ``begin`` to ``end`` in tile order, and convert the moments to gradients.

    What all cameras share is summed over the cameras in order.
    """
    flat_sums, stride = pair_sums.reshape(-1), pair_sums.shape[1]
    total = np.empty(stride, np.float32)
    shared_opacities, shared_colors = len(opacities) == num_gaussians, len(grad_colors) == num_gaussians
    for camera in range(cameras[0], cameras[1]):
        for gaussian in range(begin, end):
            item = camera * num_gaussians + gaussian
            first, last = item_starts[item] - first_slot, item_starts[item + 1] - first_slot
            if first == last:
                for k in range(2):
                    grad_means2d[camera, gaussian, k] = 0.0
                for k in range(3):
                    grad_conics[camera, gaussian, k] = 0.0
                if len(absgrads) > 0:
                    absgrads[camera, gaussian, 0], absgrads[camera, gaussian, 1] = 0.0, 0.0
                continue
            for part in range(0, stride, LANES):
                sums = load(flat_sums, first * stride + part)
                for slot in range(first + 1, last):
                    sums = sums + load(flat_sums, slot * stride + part)
                store(total, part, sums)
            a, b, c = conics[camera, gaussian, 0], conics[camera, gaussian, 1], conics[camera, gaussian, 2]
            grad_means2d[camera, gaussian, 0] = a * total[MOMENT_X] + b * total[MOMENT_Y]
            grad_means2d[camera, gaussian, 1] = b * total[MOMENT_X] + c * total[MOMENT_Y]
            grad_conics[camera, gaussian, 0] = np.float32(-0.5) * total[MOMENT_XX]
            grad_conics[camera, gaussian, 1] = -total[MOMENT_XY]
            grad_conics[camera, gaussian, 2] = np.float32(-0.5) * total[MOMENT_YY]
            own = gaussian if shared_opacities else item
            grad_opacities[own] += total[MOMENT] / opacities[own]
            grad_color = grad_colors[gaussian if shared_colors else item]
            for k in range(len(grad_color)):
                grad_color[k] += total[PAIR_COLOR + k]
            if len(absgrads) > 0:
                absolute_x = PAIR_COLOR + grad_colors.shape[1]
                # The record's quadratic is the conic times -log2(e).
                absgrads[camera, gaussian, 0] = np.float32(1.0 / LOG2_E) * total[absolute_x]
                absgrads[camera, gaussian, 1] = np.float32(1.0 / LOG2_E) * total[absolute_x + 1]
