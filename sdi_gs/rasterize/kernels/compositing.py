"""Front-to-back alpha compositing and its gradient, one 16x16 tile at a time, a block of 4x4 or 4x2 pixels per vector.

Semantics of gsplat 1.5.3 ``csrc/RasterizeToPixels3DGS{Fwd,Bwd}.cu``: pixel centres at +0.5, alpha cut at 0.999,
skipped below 1/255, and a pixel ends before the Gaussian that would bring its transmittance to 1e-4 or less.

A plane holds one value per pixel, block by block. The transmittance plane holds T while a pixel is open, -T once it
has ended, and 0 outside the image, so T > 0 means "open".

The backward pass runs front to back, too. With q the dot product of a Gaussian's colour and the pixel's gradient, it
keeps the remainder, the sum of weight * q over the Gaussians still to come. The remainder starts at the pixel's colour,
background included, times its gradient, so the pass never divides by a transmittance.

Letters: I images, H W pixels, M items (a Gaussian in an image), P (Gaussian, tile) pairs, D channels, R floats of a
record, S floats of a pair's sums. ``channels`` is a tuple of length D.
"""

from __future__ import annotations

import math

import numpy as np

from sdi_gs.rasterize.kernels.channels import (
    channel_add_scaled,
    channel_broadcast,
    channel_dot,
    channel_load,
    channel_store,
    channel_zeros,
    store_lane_sums,
)
from sdi_gs.rasterize.kernels.jit import kernel
from sdi_gs.rasterize.kernels.projection import MIN_ALPHA, TILE_SIZE
from sdi_gs.rasterize.kernels.simd import (
    LANES,
    absolute,
    any_lane,
    broadcast,
    exp2,
    lane_bits,
    lane_numbers,
    load,
    lowest_bit,
    maximum,
    minimum,
    round_down,
    select,
    store,
)

MAX_ALPHA = 0.999
MIN_TRANSMITTANCE = 1e-4

_TILE_PIXELS = TILE_SIZE * TILE_SIZE
# A block is one vector, four pixels across; a tile is four blocks across. Both fit the lanes' grid of four across.
_BLOCK_COLUMNS, _BLOCK_ROWS = 4, LANES // 4
_BLOCKS_ACROSS, _NUM_BLOCKS = TILE_SIZE // 4, TILE_SIZE * TILE_SIZE // LANES

# Fields of a splat record. At offset (dx, dy) from its centre an item has the alpha
# 2 ^ (LOG2_OPACITY + QUADRATIC_XX dx^2 + QUADRATIC_XY dx dy + QUADRATIC_YY dy^2).
CENTER_X, CENTER_Y, QUADRATIC_XX, QUADRATIC_XY, QUADRATIC_YY, LOG2_OPACITY = range(6)
# On a line of fixed dx the alpha is largest at dy = RIDGE_Y dx, on one of fixed dy at dx = RIDGE_X dy.
RIDGE_X, RIDGE_Y, RECORD_COLOR = 6, 7, 8

# Fields of a pair's sums: moments of the gradient of log(alpha), |gradient| of the centre, gradient of the colour.
MOMENT, MOMENT_X, MOMENT_Y, MOMENT_XX, MOMENT_XY, MOMENT_YY, ABSOLUTE_X, ABSOLUTE_Y, PAIR_COLOR = range(9)

_LOG2_E = 1.4426950408889634
# Margin below log2(1/255) at which a block is still composited, so that rounding never drops a visible one.
_EXPONENT_MARGIN = 2e-4
_BATCH = 128


def record_length(num_channels: int) -> int:
    """Return the floats of a splat record, in whole vectors."""
    return -(-(RECORD_COLOR + num_channels) // LANES) * LANES


def pair_length(num_channels: int) -> int:
    """Return the floats of a pair's sums, in whole vectors."""
    return -(-(PAIR_COLOR + num_channels) // LANES) * LANES


@kernel
def write_records(
    begin,
    end,
    item_starts,  # [M + 1] first pair of each item
    means2d,  # [M, 2]
    conics,  # [M, 3]
    opacities,  # [M]
    colors,  # [M, D]
    records,  # [M, R] written where an item has pairs
):
    """Write one record for each of items ``begin`` to ``end``: the values that the tile loops read."""
    for item in range(begin, end):
        if item_starts[item] == item_starts[item + 1]:
            continue
        record = records[item]
        a, b, c = conics[item, 0], conics[item, 1], conics[item, 2]
        record[CENTER_X], record[CENTER_Y] = means2d[item, 0], means2d[item, 1]
        record[QUADRATIC_XX] = np.float32(-0.5 * _LOG2_E) * a
        record[QUADRATIC_XY] = np.float32(-_LOG2_E) * b
        record[QUADRATIC_YY] = np.float32(-0.5 * _LOG2_E) * c
        record[LOG2_OPACITY] = math.log2(opacities[item])
        record[RIDGE_X], record[RIDGE_Y] = -b / a, -b / c
        for k in range(colors.shape[1]):
            record[RECORD_COLOR + k] = colors[item, k]


@kernel
def _tile_place(tile, grid, width, height):
    """Return a tile's image, first column and row, and numbers of columns and rows inside the image."""
    tiles_x, tiles_y = grid
    image = tile // (tiles_x * tiles_y)
    in_image = tile - image * tiles_x * tiles_y
    tile_y = in_image // tiles_x
    x0, y0 = (in_image - tile_y * tiles_x) * TILE_SIZE, tile_y * TILE_SIZE
    return image, x0, y0, min(TILE_SIZE, width - x0), min(TILE_SIZE, height - y0)


@kernel
def _row_start(row):
    """Return the index of a tile's row in a plane; its columns 4, 8 and 12 start 1, 2 and 3 blocks further."""
    return row // _BLOCK_ROWS * (_BLOCKS_ACROSS * LANES) + row % _BLOCK_ROWS * _BLOCK_COLUMNS


@kernel
def _pixel(row_start, column):
    """Return the index of a tile's pixel in a plane."""
    return row_start + column // _BLOCK_COLUMNS * LANES + column % _BLOCK_COLUMNS


@kernel
def _blocks_inside(num_columns, num_rows):
    """Return the blocks with pixels inside the image, as bits."""
    bits = 0
    for block in range(_NUM_BLOCKS):
        column, row = block % _BLOCKS_ACROSS * _BLOCK_COLUMNS, block // _BLOCKS_ACROSS * _BLOCK_ROWS
        if column < num_columns and row < num_rows:
            bits |= 1 << block
    return bits


@kernel
def _block_offset(block):
    """Return the first column and row of a block in its tile."""
    return np.float32(block % _BLOCKS_ACROSS * _BLOCK_COLUMNS), np.float32(block // _BLOCKS_ACROSS * _BLOCK_ROWS)


@kernel
def _lane_grid():
    """Return each lane's column and row in a grid of four columns."""
    lanes = lane_numbers()
    rows = round_down(lanes * 0.25)
    return lanes - rows * 4.0, rows


@kernel
def _exponent(record, dx, dy):
    """Return log2 of an item's alpha at offsets from its centre."""
    along_x = record[QUADRATIC_XX] * dx + record[QUADRATIC_XY] * dy
    return dx * along_x + (dy * (record[QUADRATIC_YY] * dy) + record[LOG2_OPACITY])


@kernel
def _clamp(value, low, high):
    return minimum(maximum(value, low), high)


@kernel
def _find_blocks(first, last, flatten_ids, records, center_x, center_y, block_bits):
    """Write, for each pair, the blocks in which the item reaches alpha 1/255, as bits.

    log(alpha) is concave, so its maximum over a block that does not contain the centre lies on a side facing it.
    """
    columns, rows = _lane_grid()
    threshold = np.float32(math.log2(MIN_ALPHA) - _EXPONENT_MARGIN)
    for pair in range(first, last):
        record = records[np.uint32(flatten_ids[pair])]
        left = columns * _BLOCK_COLUMNS - (record[CENTER_X] - center_x)
        right = left + (_BLOCK_COLUMNS - 1)
        bits = 0
        for block in range(0, _NUM_BLOCKS, LANES):
            first_row = np.float32(block // _BLOCKS_ACROSS * _BLOCK_ROWS)
            top = rows * _BLOCK_ROWS - (record[CENTER_Y] - center_y - first_row)
            bottom = top + (_BLOCK_ROWS - 1)
            x, y = _clamp(0.0, left, right), _clamp(0.0, top, bottom)
            on_vertical_side = _exponent(record, x, _clamp(record[RIDGE_Y] * x, top, bottom))
            on_horizontal_side = _exponent(record, _clamp(record[RIDGE_X] * y, left, right), y)
            bits |= lane_bits(maximum(on_vertical_side, on_horizontal_side) >= threshold) << block
        block_bits[pair - first] = bits


@kernel
def _blend(record, dx, dy, transmittance):
    """Blend an item into a block.

    Returns alpha before and after the cut at 0.999, the masks of pixels that the item touches and of those that it
    ends, and the new transmittance plane.
    """
    uncut = exp2(_exponent(record, dx, dy))
    alpha = minimum(uncut, MAX_ALPHA)
    touched = (alpha >= MIN_ALPHA) & (transmittance > 0.0)
    remaining = transmittance - transmittance * alpha
    ended = touched & (remaining <= MIN_TRANSMITTANCE)
    remaining = select(ended, -transmittance, select(touched, remaining, transmittance))
    return uncut, alpha, touched, ended, remaining


@kernel
def _ended_blocks(bits, planes):
    """Return the blocks among ``bits`` in which no pixel is open."""
    ended = 0
    while bits != 0:
        block = lowest_bit(bits)
        bits &= bits - 1
        if not any_lane(load(planes, block * LANES) > 0.0):
            ended |= 1 << block
    return ended


@kernel
def _blend_tile(first, last, flatten_ids, records, channels, x0, y0, open_blocks, planes, block_bits, pair_blocks):
    """Composite the pairs ``first`` to ``last`` into ``planes``: transmittance, then the channels.

    ``open_blocks`` are the blocks with open pixels, as bits; ``pair_blocks`` is set to the blocks that a pair changed.
    """
    columns, rows = _lane_grid()
    center_x, center_y = np.float32(x0 + 0.5), np.float32(y0 + 0.5)
    flat_records, stride = records.reshape(-1), records.shape[1]
    nowhere = columns < 0.0
    while first < last and open_blocks != 0:
        batch_end = min(first + _BATCH, last)
        _find_blocks(first, batch_end, flatten_ids, records, center_x, center_y, block_bits)
        for pair in range(first, batch_end):
            bits = block_bits[pair - first] & open_blocks
            pair_blocks[pair] = 0
            if bits == 0:
                continue
            item = np.uint32(flatten_ids[pair])
            record = records[item]
            left, top = columns - (record[CENTER_X] - center_x), rows - (record[CENTER_Y] - center_y)
            color = channel_broadcast(flat_records, item * stride + RECORD_COLOR, channels)
            waiting, used, any_ended = bits, 0, nowhere
            while waiting != 0:
                block = lowest_bit(waiting)
                waiting &= waiting - 1
                start = block * LANES
                across, down = _block_offset(block)
                dx, dy = left + across, top + down
                transmittance = load(planes, start)
                _, alpha, touched, ended, remaining = _blend(record, dx, dy, transmittance)
                store(planes, start, remaining)
                used |= np.int64(any_lane(touched)) << block
                weight = select(touched & ~ended, alpha * transmittance, 0.0)
                so_far = channel_load(planes, start + _TILE_PIXELS, _TILE_PIXELS, channels)
                so_far = channel_add_scaled(so_far, weight, color)
                channel_store(planes, start + _TILE_PIXELS, _TILE_PIXELS, so_far)
                any_ended = any_ended | ended
            pair_blocks[pair] = used
            if any_lane(any_ended):
                open_blocks &= ~_ended_blocks(bits, planes)
        first = batch_end
    for pair in range(first, last):
        pair_blocks[pair] = 0


@kernel
def composite(
    begin,
    step,
    tile_order,  # [I * tiles]
    grid,  # (tiles_x, tiles_y)
    tile_starts,  # [I * tiles + 1]
    flatten_ids,  # [P] int32
    records,  # [M, R]
    channels,
    backgrounds,  # [I, D]
    colors,  # [I, H, W, D] written
    alphas,  # [I, H, W] written
    pair_blocks,  # [P] uint32, written: the blocks of its tile that a pair changed, as bits
):
    """Render tiles ``begin``, ``begin + step``, ... of ``tile_order``."""
    height, width = alphas.shape[1], alphas.shape[2]
    planes = np.empty((1 + len(channels)) * _TILE_PIXELS, np.float32)
    block_bits = np.empty(_BATCH, np.int64)
    for position in range(begin, len(tile_order), step):
        tile = tile_order[position]
        image, x0, y0, num_columns, num_rows = _tile_place(tile, grid, width, height)
        planes[:] = 0.0
        for row in range(num_rows):
            row_start = _row_start(row)
            for column in range(num_columns):
                planes[_pixel(row_start, column)] = 1.0
        first, last = tile_starts[tile], tile_starts[tile + 1]
        open_blocks = _blocks_inside(num_columns, num_rows)
        _blend_tile(first, last, flatten_ids, records, channels, x0, y0, open_blocks, planes, block_bits, pair_blocks)
        for row in range(num_rows):
            row_start = _row_start(row)
            row_alphas, row_colors = alphas[image, y0 + row, x0:], colors[image, y0 + row, x0:]
            for column in range(num_columns):
                pixel = _pixel(row_start, column)
                transmittance = abs(planes[pixel])
                row_alphas[column] = np.float32(1.0) - transmittance
                for k in range(len(channels)):
                    seen = planes[(1 + k) * _TILE_PIXELS + pixel]
                    row_colors[column, k] = seen + transmittance * backgrounds[image, k]


@kernel
def _differentiate_tile(
    first, last, flatten_ids, pair_slots, pair_blocks, records, channels, absgrad, x0, y0, planes, pair_sums
):
    """Write the sums of pairs ``first`` to ``last``; ``planes`` hold transmittance, remainder and channel gradients."""
    columns, rows = _lane_grid()
    center_x, center_y = np.float32(x0 + 0.5), np.float32(y0 + 0.5)
    flat_records, stride = records.reshape(-1), records.shape[1]
    flat_sums, sums_stride = pair_sums.reshape(-1), pair_sums.shape[1]
    zero = broadcast(0.0)
    for pair in range(first, last):
        bits = np.int64(pair_blocks[pair])
        slot = np.uint32(pair_slots[pair]) * sums_stride
        if bits == 0:
            for part in range(0, sums_stride, LANES):
                store(flat_sums, slot + part, zero)
            continue
        item = np.uint32(flatten_ids[pair])
        record = records[item]
        left, top = columns - (record[CENTER_X] - center_x), rows - (record[CENTER_Y] - center_y)
        color = channel_broadcast(flat_records, item * stride + RECORD_COLOR, channels)
        m, mx, my, mxx, mxy, myy, absolute_x, absolute_y = zero, zero, zero, zero, zero, zero, zero, zero
        grad_color = channel_zeros(channels)
        while bits != 0:
            block = lowest_bit(bits)
            bits &= bits - 1
            start = block * LANES
            across, down = _block_offset(block)
            dx, dy = left + across, top + down
            transmittance = load(planes, start)
            uncut, alpha, touched, ended, remaining = _blend(record, dx, dy, transmittance)
            composited = touched & ~ended
            store(planes, start, remaining)
            weight = select(composited, alpha * transmittance, 0.0)
            pixel_gradient = channel_load(planes, start + 2 * _TILE_PIXELS, _TILE_PIXELS, channels)
            grad_color = channel_add_scaled(grad_color, weight, pixel_gradient)
            own_part = weight * channel_dot(color, pixel_gradient)
            remainder = load(planes, start + _TILE_PIXELS) - own_part
            store(planes, start + _TILE_PIXELS, remainder)
            # Gradient of log(alpha): the item's own contribution minus that of the items it hides; 0 if alpha was cut.
            slope = own_part - remainder * (alpha / (1.0 - alpha))
            slope = select(composited & (uncut <= MAX_ALPHA), slope, 0.0)
            slope_x, slope_y = slope * dx, slope * dy
            m, mx, my = m + slope, mx + slope_x, my + slope_y
            mxx, mxy, myy = mxx + slope_x * dx, mxy + slope_x * dy, myy + slope_y * dy
            if len(absgrad) > 0:
                mixed = record[QUADRATIC_XY]
                absolute_x = absolute_x + absolute(slope * (2.0 * record[QUADRATIC_XX] * dx + mixed * dy))
                absolute_y = absolute_y + absolute(slope * (mixed * dx + 2.0 * record[QUADRATIC_YY] * dy))
        sums = (m, mx, my, mxx, mxy, myy, absolute_x, absolute_y)
        store_lane_sums(flat_sums, slot, sums + grad_color)


@kernel
def composite_backward(
    begin,
    step,
    tile_order,  # [I * tiles]
    grid,  # (tiles_x, tiles_y)
    tile_starts,  # [I * tiles + 1]
    flatten_ids,  # [P] int32
    pair_slots,  # [P] int32
    pair_blocks,  # [P] uint32
    records,  # [M, R]
    channels,
    absgrad,  # a tuple, empty for no absolute gradients
    colors,  # [I, H, W, D]
    alphas,  # [I, H, W]
    grad_colors,  # [I, H, W, D]
    grad_alphas,  # [I, H, W]
    pair_sums,  # [P, S] written
):
    """Write the pairs' gradient sums of tiles ``begin``, ``begin + step``, ... of ``tile_order``."""
    height, width = alphas.shape[1], alphas.shape[2]
    planes = np.empty((2 + len(channels)) * _TILE_PIXELS, np.float32)
    for position in range(begin, len(tile_order), step):
        tile = tile_order[position]
        first, last = tile_starts[tile], tile_starts[tile + 1]
        if first == last:
            continue
        image, x0, y0, num_columns, num_rows = _tile_place(tile, grid, width, height)
        planes[:] = 0.0
        for row in range(num_rows):
            row_start, y = _row_start(row), y0 + row
            row_alphas, row_colors = alphas[image, y, x0:], colors[image, y, x0:]
            row_grad_alphas, row_grad_colors = grad_alphas[image, y, x0:], grad_colors[image, y, x0:]
            for column in range(num_columns):
                pixel = _pixel(row_start, column)
                remainder = (row_alphas[column] - np.float32(1.0)) * row_grad_alphas[column]
                for k in range(len(channels)):
                    gradient = row_grad_colors[column, k]
                    planes[(2 + k) * _TILE_PIXELS + pixel] = gradient
                    remainder += gradient * row_colors[column, k]
                planes[pixel], planes[_TILE_PIXELS + pixel] = 1.0, remainder
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
            pair_sums,
        )


@kernel
def gather_gradients(
    begin,
    end,
    item_starts,  # [M + 1] first pair of each item
    pair_sums,  # [P, S]
    conics,  # [M, 3]
    opacities,  # [M]
    grad_means2d,  # [M, 2] written
    grad_conics,  # [M, 3] written
    grad_opacities,  # [M] written
    grad_colors,  # [M, D] written
    absgrads,  # [M, 2] written, or empty
):
    """Sum the pairs of items ``begin`` to ``end`` in tile order, and convert the moments to gradients."""
    flat_sums, stride = pair_sums.reshape(-1), pair_sums.shape[1]
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
            grad_colors[item, k] = total[PAIR_COLOR + k]
        if len(absgrads) > 0:
            # The record's quadratic is the conic times -log2(e).
            absgrads[item, 0] = np.float32(1.0 / _LOG2_E) * total[ABSOLUTE_X]
            absgrads[item, 1] = np.float32(1.0 / _LOG2_E) * total[ABSOLUTE_Y]
