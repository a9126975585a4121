"""Front-to-back alpha compositing of one 16x16 tile at a time, one tile row per vector, and its gradient.

Semantics of gsplat 1.5.3 ``csrc/RasterizeToPixels3DGS{Fwd,Bwd}.cu``: pixel centres at +0.5, alpha cut at 0.999,
skipped below 1/255, and a pixel ends before the Gaussian that would bring its transmittance to 1e-4 or less.

The transmittance plane holds T while a pixel is open, -T once it has ended, and 0 outside the image, so T > 0
reads "open". The backward pass also runs front to back: with q the product of a Gaussian's colour and the pixel's gradient,
it keeps the remainder R = sum of weight * q over what is still to come, which starts at the whole (colour times
gradient, background included). No transmittance is ever divided.

Letters: I images, H W pixels, M items (a Gaussian in an image), P (Gaussian, tile) pairs, D channels. ``channels`` is a
tuple of length D.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from sdi_gs.rasterize.kernels.projection import MIN_ALPHA, TILE_SIZE
from sdi_gs.rasterize.kernels.simd import (
    KERNEL_OPTIONS,
    LANES,
    absolute,
    any_lane,
    broadcast,
    channel_add_scaled,
    channel_broadcast,
    channel_dot,
    channel_load,
    channel_store,
    channel_zeros,
    count_bits,
    exp2,
    lane_bits,
    lane_numbers,
    load,
    lowest_bit,
    maximum,
    minimum,
    select,
    square_root,
    store,
    store_lane_sums,
)

MAX_ALPHA = 0.999
MIN_TRANSMITTANCE = 1e-4
TILE_PIXELS = TILE_SIZE * TILE_SIZE

# Fields of a splat record. The exponent of an item at offset (dx, dy) is
# LOG2_OPACITY + QUADRATIC_XX dx^2 + QUADRATIC_XY dx dy + QUADRATIC_YY dy^2, in powers of two.
CENTER_X, CENTER_Y, QUADRATIC_XX, QUADRATIC_XY, QUADRATIC_YY, LOG2_OPACITY = range(6)
# Along the row at dy, the item reaches alpha 1/255 within SLOPE dy +- sqrt(REACH - SHRINK dy^2).
REACH, SHRINK, SLOPE, COLOR = 6, 7, 8, 9

# Fields of a pair's gradient sums: moments of the exponent's gradient, the absolute gradient of the centre, and colour.
MOMENT, MOMENT_X, MOMENT_Y, MOMENT_XX, MOMENT_XY, MOMENT_YY, ABSOLUTE_X, ABSOLUTE_Y, GRAD_COLOR = range(9)

_LOG2_E = 1.4426950408889634
_BATCH = 128


def record_length(num_channels: int) -> int:
    """Floats of a splat record, whole vectors."""
    return -(-(COLOR + num_channels) // LANES) * LANES


def pair_length(num_channels: int) -> int:
    """Floats of a pair's gradient sums, whole vectors."""
    return -(-(GRAD_COLOR + num_channels) // LANES) * LANES


@njit(**KERNEL_OPTIONS)
def write_records(
    begin,
    end,
    item_starts,  # [M + 1]
    means2d,  # [M, 2]
    conics,  # [M, 3]
    opacities,  # [M]
    colors,  # [M, D]
    records,  # [M, R] written where an item has pairs
):
    """Gather what the tile loops need of items ``begin`` to ``end`` into one record each."""
    for item in range(begin, end):
        if item_starts[item] == item_starts[item + 1]:
            continue
        record = records[item]
        a, b, c = conics[item, 0], conics[item, 1], conics[item, 2]
        opacity = opacities[item]
        # Row masks only save work, so they may be a little wide: a margin on the level, and the determinant
        # lowered by its own rounding error.
        level = np.float32(2.0 * (math.log(opacity / MIN_ALPHA) * 1.0001 + 1e-4))
        determinant = max(a * c - b * b - np.float32(5e-7) * a * c, np.float32(0.0))
        inverse_a = np.float32(1.0) / a
        record[CENTER_X], record[CENTER_Y] = means2d[item, 0], means2d[item, 1]
        record[QUADRATIC_XX] = np.float32(-0.5 * _LOG2_E) * a
        record[QUADRATIC_XY] = np.float32(-_LOG2_E) * b
        record[QUADRATIC_YY] = np.float32(-0.5 * _LOG2_E) * c
        record[LOG2_OPACITY] = math.log2(opacity)
        record[REACH] = level * inverse_a
        record[SHRINK] = determinant * inverse_a * inverse_a
        record[SLOPE] = -b * inverse_a
        for k in range(colors.shape[1]):
            record[COLOR + k] = colors[item, k]


@njit(**KERNEL_OPTIONS)
def _tile_place(tile, tiles_x, tiles_y, width, height):
    """Image, first column, first row, and columns and rows inside the image."""
    image = tile // (tiles_x * tiles_y)
    in_image = tile - image * tiles_x * tiles_y
    tile_y = in_image // tiles_x
    x0, y0 = (in_image - tile_y * tiles_x) * TILE_SIZE, tile_y * TILE_SIZE
    return image, x0, y0, min(TILE_SIZE, width - x0), min(TILE_SIZE, height - y0)


@njit(**KERNEL_OPTIONS)
def _find_rows(first, last, flatten_ids, records, center_x, center_y, num_rows, row_bits):
    """For each pair, the tile rows where the item reaches alpha 1/255, as bits."""
    rows = lane_numbers()
    inside = rows < num_rows
    for pair in range(first, last):
        record = records[flatten_ids[pair]]
        dy = rows - (record[CENTER_Y] - center_y)
        half_squared = record[REACH] - record[SHRINK] * dy * dy
        half = square_root(maximum(half_squared, 0.0))
        middle = record[SLOPE] * dy + (record[CENTER_X] - center_x)
        # A pixel of margin covers rounding; lanes outside are dropped by the alpha cut.
        touches = (half_squared >= 0.0) & (middle + half >= -0.01) & (middle - half <= TILE_SIZE - 0.99)
        row_bits[pair - first] = lane_bits(inside & touches)


@njit(**KERNEL_OPTIONS)
def composite(
    begin,
    step,
    tile_order,  # [I * tiles]
    grid,  # (tiles_x, tiles_y)
    tile_starts,  # [I * tiles + 1]
    flatten_ids,  # [P] int32
    records,  # [M, R]
    channels,
    background,  # [I, D]
    colors,  # [I, H, W, D] written
    alphas,  # [I, H, W] written
):
    """Render tiles ``begin``, ``begin + step``, ... of ``tile_order``."""
    height, width = alphas.shape[1], alphas.shape[2]
    flat_records = records.reshape(-1)
    stride = records.shape[1]
    # Plane 0 is the transmittance, the others the colour so far.
    planes = np.empty((1 + len(channels)) * TILE_PIXELS, np.float32)
    row_bits = np.empty(_BATCH, np.int64)
    columns = lane_numbers()
    for position in range(begin, len(tile_order), step):
        tile = tile_order[position]
        image, x0, y0, num_columns, num_rows = _tile_place(tile, grid[0], grid[1], width, height)
        planes[:] = 0.0
        for row in range(num_rows):
            store(planes, row * LANES, select(columns < num_columns, 1.0, 0.0))
        num_open = num_rows * num_columns
        center_x, center_y = np.float32(x0 + 0.5), np.float32(y0 + 0.5)
        batch, last = tile_starts[tile], tile_starts[tile + 1]
        while batch < last and num_open > 0:
            batch_end = min(batch + _BATCH, last)
            _find_rows(batch, batch_end, flatten_ids, records, center_x, center_y, num_rows, row_bits)
            for pair in range(batch, batch_end):
                bits = row_bits[pair - batch]
                if bits == 0:
                    continue
                item = flatten_ids[pair]
                record = records[item]
                dx = columns - (record[CENTER_X] - center_x)
                offset_y = record[CENTER_Y] - center_y
                mixed, quadratic_y, log2_opacity = record[QUADRATIC_XY], record[QUADRATIC_YY], record[LOG2_OPACITY]
                along_x = record[QUADRATIC_XX] * dx * dx
                color = channel_broadcast(flat_records, item * stride + COLOR, channels)
                while bits != 0:
                    row = lowest_bit(bits)
                    bits &= bits - 1
                    dy = np.float32(row) - offset_y
                    exponent = dx * (mixed * dy) + (log2_opacity + quadratic_y * dy * dy) + along_x
                    alpha = minimum(exp2(exponent), MAX_ALPHA)
                    start = row * LANES
                    transmittance = load(planes, start)
                    touched = (alpha >= MIN_ALPHA) & (transmittance > 0.0)
                    next_transmittance = transmittance - transmittance * alpha
                    ended = touched & (next_transmittance <= MIN_TRANSMITTANCE)
                    weight = select(touched & ~ended, alpha * transmittance, 0.0)
                    so_far = channel_load(planes, start + TILE_PIXELS, TILE_PIXELS, channels)
                    channel_store(planes, start + TILE_PIXELS, TILE_PIXELS, channel_add_scaled(so_far, weight, color))
                    next_transmittance = select(touched, next_transmittance, transmittance)
                    if any_lane(ended):
                        next_transmittance = select(ended, -transmittance, next_transmittance)
                        num_open -= count_bits(lane_bits(ended))
                    store(planes, start, next_transmittance)
            batch = batch_end
        for row in range(num_rows):
            for column in range(num_columns):
                pixel = row * LANES + column
                transmittance = abs(planes[pixel])
                alphas[image, y0 + row, x0 + column] = np.float32(1.0) - transmittance
                for k in range(len(channels)):
                    color_so_far = planes[(1 + k) * TILE_PIXELS + pixel]
                    colors[image, y0 + row, x0 + column, k] = color_so_far + transmittance * background[image, k]


@njit(**KERNEL_OPTIONS)
def composite_backward(
    begin,
    step,
    tile_order,  # [I * tiles]
    grid,  # (tiles_x, tiles_y)
    tile_starts,  # [I * tiles + 1]
    flatten_ids,  # [P] int32
    pair_slots,  # [P] int32
    records,  # [M, R]
    channels,
    absgrad,  # a tuple, empty for no absolute gradients
    colors,  # [I, H, W, D]
    alphas,  # [I, H, W]
    grad_colors,  # [I, H, W, D]
    grad_alphas,  # [I, H, W]
    pair_sums,  # [P, S] written
):
    """Per-pair gradient sums of tiles ``begin``, ``begin + step``, ... of ``tile_order``."""
    height, width = alphas.shape[1], alphas.shape[2]
    flat_records, flat_sums = records.reshape(-1), pair_sums.reshape(-1)
    stride, sums_stride = records.shape[1], pair_sums.shape[1]
    # Planes: transmittance, remainder, the gradient of each channel.
    planes = np.empty((2 + len(channels)) * TILE_PIXELS, np.float32)
    row_bits = np.empty(_BATCH, np.int64)
    columns = lane_numbers()
    zero = broadcast(0.0)
    for position in range(begin, len(tile_order), step):
        tile = tile_order[position]
        batch, last = tile_starts[tile], tile_starts[tile + 1]
        if batch == last:
            continue
        image, x0, y0, num_columns, num_rows = _tile_place(tile, grid[0], grid[1], width, height)
        planes[:] = 0.0
        for row in range(num_rows):
            for column in range(num_columns):
                y, x, pixel = y0 + row, x0 + column, row * LANES + column
                remainder = (alphas[image, y, x] - np.float32(1.0)) * grad_alphas[image, y, x]
                for k in range(len(channels)):
                    gradient = grad_colors[image, y, x, k]
                    planes[(2 + k) * TILE_PIXELS + pixel] = gradient
                    remainder += gradient * colors[image, y, x, k]
                planes[pixel] = 1.0
                planes[TILE_PIXELS + pixel] = remainder
        num_open = num_rows * num_columns
        center_x, center_y = np.float32(x0 + 0.5), np.float32(y0 + 0.5)
        while batch < last and num_open > 0:
            batch_end = min(batch + _BATCH, last)
            _find_rows(batch, batch_end, flatten_ids, records, center_x, center_y, num_rows, row_bits)
            for pair in range(batch, batch_end):
                bits = row_bits[pair - batch]
                item = flatten_ids[pair]
                record = records[item]
                dx = columns - (record[CENTER_X] - center_x)
                offset_y = record[CENTER_Y] - center_y
                quadratic_x, mixed, quadratic_y = record[QUADRATIC_XX], record[QUADRATIC_XY], record[QUADRATIC_YY]
                log2_opacity = record[LOG2_OPACITY]
                along_x = quadratic_x * dx * dx
                color = channel_broadcast(flat_records, item * stride + COLOR, channels)
                moment, moment_y, moment_yy, absolute_x, absolute_y = zero, zero, zero, zero, zero
                grad_color = channel_zeros(channels)
                while bits != 0:
                    row = lowest_bit(bits)
                    bits &= bits - 1
                    dy = np.float32(row) - offset_y
                    exponent = dx * (mixed * dy) + (log2_opacity + quadratic_y * dy * dy) + along_x
                    unclamped = exp2(exponent)
                    alpha = minimum(unclamped, MAX_ALPHA)
                    start = row * LANES
                    transmittance = load(planes, start)
                    touched = (alpha >= MIN_ALPHA) & (transmittance > 0.0)
                    next_transmittance = transmittance - transmittance * alpha
                    ended = touched & (next_transmittance <= MIN_TRANSMITTANCE)
                    composited = touched & ~ended
                    weight = select(composited, alpha * transmittance, 0.0)
                    pixel_gradient = channel_load(planes, start + 2 * TILE_PIXELS, TILE_PIXELS, channels)
                    grad_color = channel_add_scaled(grad_color, weight, pixel_gradient)
                    own_part = weight * channel_dot(color, pixel_gradient)
                    remainder = load(planes, start + TILE_PIXELS) - own_part
                    store(planes, start + TILE_PIXELS, remainder)
                    # Gradient with respect to log(alpha); none where alpha was cut.
                    slope = own_part - remainder * (alpha / (1.0 - alpha))
                    slope = select(composited & (unclamped <= MAX_ALPHA), slope, 0.0)
                    moment = moment + slope
                    moment_y = moment_y + slope * dy
                    moment_yy = moment_yy + slope * dy * dy
                    if len(absgrad) > 0:
                        # The centre moves against dx, and the record holds -log2(e) times the conic.
                        absolute_x = absolute_x + absolute(slope * (2.0 * quadratic_x * dx + mixed * dy))
                        absolute_y = absolute_y + absolute(slope * (mixed * dx + 2.0 * quadratic_y * dy))
                    next_transmittance = select(touched, next_transmittance, transmittance)
                    if any_lane(ended):
                        next_transmittance = select(ended, -transmittance, next_transmittance)
                        num_open -= count_bits(lane_bits(ended))
                    store(planes, start, next_transmittance)
                # dx does not depend on the row, so its powers can wait until here.
                moment_x = moment * dx
                moments = (moment, moment_x, moment_y, moment_x * dx, moment_y * dx, moment_yy, absolute_x, absolute_y)
                store_lane_sums(flat_sums, pair_slots[pair] * sums_stride, moments + grad_color)
            batch = batch_end
        for pair in range(batch, last):
            pair_sums[pair_slots[pair]] = 0.0


@njit(**KERNEL_OPTIONS)
def gather_gradients(
    begin,
    end,
    item_starts,  # [M + 1]
    pair_sums,  # [P, S]
    conics,  # [M, 3]
    opacities,  # [M]
    grad_means2d,  # [M, 2] written
    grad_conics,  # [M, 3] written
    grad_opacities,  # [M] written
    grad_colors,  # [M, D] written
    absgrads,  # [M, 2] written if not empty
):
    """Sum the pairs of items ``begin`` to ``end``, in tile order, and turn moments into gradients."""
    flat_sums = pair_sums.reshape(-1)
    stride = pair_sums.shape[1]
    total = np.empty(stride, np.float32)
    for item in range(begin, end):
        first, last = item_starts[item], item_starts[item + 1]
        for part in range(0, stride, LANES):
            sums = broadcast(0.0)
            for slot in range(first, last):
                sums = sums + load(flat_sums, slot * stride + part)
            store(total, part, sums)
        a, b, c = conics[item, 0], conics[item, 1], conics[item, 2]
        grad_means2d[item, 0] = a * total[MOMENT_X] + b * total[MOMENT_Y]
        grad_means2d[item, 1] = b * total[MOMENT_X] + c * total[MOMENT_Y]
        grad_conics[item, 0] = np.float32(-0.5) * total[MOMENT_XX]
        grad_conics[item, 1] = -total[MOMENT_XY]
        grad_conics[item, 2] = np.float32(-0.5) * total[MOMENT_YY]
        grad_opacities[item] = total[MOMENT] / opacities[item] if first < last else np.float32(0.0)
        for k in range(grad_colors.shape[1]):
            grad_colors[item, k] = total[GRAD_COLOR + k]
        if absgrads.shape[0] > 0:
            absgrads[item, 0] = np.float32(1.0 / _LOG2_E) * total[ABSOLUTE_X]
            absgrads[item, 1] = np.float32(1.0 / _LOG2_E) * total[ABSOLUTE_Y]
