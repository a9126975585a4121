"""Front-to-back alpha compositing, one 16x16 tile at a time, a block of 4x4 or 4x2 pixels per vector.

Semantics of gsplat 1.5.3 ``csrc/RasterizeToPixels3DGS{Fwd,Bwd}.cu``: pixel centres at +0.5, alpha cut at 0.999,
skipped below 1/255, and a pixel ends before the Gaussian that would bring its transmittance to 1e-4 or less.

The pairs of a tile are taken in batches: first the blocks that each pair reaches are found, then each block blends its
pairs of the batch, with its pixels in registers. ``compositing_backward`` is the gradient.

Letters: I images, H W pixels, M items (a Gaussian in an image), P (Gaussian, tile) pairs, D channels, R floats of a
record. ``channels`` is a tuple of length D.
"""

from __future__ import annotations

import math

import numpy as np

from sdi_gs.rasterize.kernels.channels import (
    channel_add_scaled,
    channel_broadcast,
    channel_load,
    channel_store,
    store_pixels,
)
from sdi_gs.rasterize.kernels.jit import kernel
from sdi_gs.rasterize.kernels.pair_bits import BATCH, set_in_words, words_with
from sdi_gs.rasterize.kernels.projection import MIN_ALPHA, TILE_SIZE
from sdi_gs.rasterize.kernels.simd import (
    LANES,
    any_lane,
    exp2,
    lane_bits,
    load,
    lowest_bit,
    maximum,
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
    MAX_ALPHA,
    MOST_SHUFFLED,
    NUM_BLOCKS,
    RECORD_COLOR,
    RIDGE_X,
    RIDGE_Y,
    TILE_PIXELS,
    aligned_floats,
    blocks_inside,
    exponent,
    lane_grid,
    pixel_of,
    row_start,
    tile_place,
)

MIN_TRANSMITTANCE = 1e-4
NEVER = np.float32(1e30)
"""The number of the pair that ends a pixel, where none does."""

# Margin below log2(1/255) at which a block is still composited, so that rounding never drops a visible one.
_EXPONENT_MARGIN = 2e-4


@kernel
def _clamp(value, low, high):
    return minimum(maximum(value, low), high)


@kernel
def _load_batch(first, count, flatten_ids, records, center_x, center_y, batch, block_bits):
    """Copy the records of ``count`` pairs, with centres relative to the tile, and write the blocks that they reach.

    A block is reached if alpha is 1/255 somewhere in it. log(alpha) is concave, so its maximum over a block that does
    not contain the centre lies on a side facing it.
    """
    columns, rows = lane_grid()
    threshold = np.float32(math.log2(MIN_ALPHA) - _EXPONENT_MARGIN)
    flat_records, stride = records.reshape(-1), records.shape[1]
    for pair in range(count):
        source, target = np.uint32(flatten_ids[first + pair]) * stride, pair * stride
        for part in range(0, stride, LANES):
            store(batch, target + part, load(flat_records, source + part))
        x, y = flat_records[source + CENTER_X] - center_x, flat_records[source + CENTER_Y] - center_y
        batch[target + CENTER_X], batch[target + CENTER_Y] = x, y
        record = flat_records[source : source + RECORD_COLOR]
        left = columns * BLOCK_COLUMNS - x
        right = left + (BLOCK_COLUMNS - 1)
        bits = 0
        for block in range(0, NUM_BLOCKS, LANES):
            first_row = np.float32(block // BLOCKS_ACROSS * BLOCK_ROWS)
            top = rows * BLOCK_ROWS - (y - first_row)
            bottom = top + (BLOCK_ROWS - 1)
            near_x, near_y = _clamp(0.0, left, right), _clamp(0.0, top, bottom)
            on_vertical_side = exponent(record, near_x, _clamp(record[RIDGE_Y] * near_x, top, bottom))
            on_horizontal_side = exponent(record, _clamp(record[RIDGE_X] * near_y, left, right), near_y)
            bits |= lane_bits(maximum(on_vertical_side, on_horizontal_side) >= threshold) << block
        block_bits[pair] = bits
    block_bits[count:] = 0


@kernel
def _blend_block(block, pairs, first, stride, batch, channels, columns, rows, planes, stops):
    """Composite the batch's ``pairs``, given as bits, into one block; pairs are numbered from ``first`` on.

    Returns the pairs that the block saw, as bits, and whether some pixel is still open.
    """
    start, used = block * LANES, 0
    x, y = columns + BLOCK_LEFT[block], rows + BLOCK_TOP[block]
    transmittance, stop = load(planes, start), load(stops, start)
    so_far = channel_load(planes, start + TILE_PIXELS, TILE_PIXELS, channels)
    is_open = stop >= NEVER
    while pairs != 0:
        pair = lowest_bit(pairs)
        pairs &= pairs - 1
        at = pair * stride
        record = batch[at : at + RECORD_COLOR]
        alpha = minimum(exp2(exponent(record, x - record[CENTER_X], y - record[CENTER_Y])), MAX_ALPHA)
        touched = is_open & (alpha >= MIN_ALPHA)
        weight = select(touched, alpha * transmittance, 0.0)
        remaining = transmittance - weight
        ended = touched & (remaining <= MIN_TRANSMITTANCE)
        if any_lane(ended):
            weight, remaining = select(ended, 0.0, weight), select(ended, transmittance, remaining)
            stop = select(ended, np.float32(first + pair), stop)
            is_open = is_open & ~ended
            if not any_lane(is_open):
                pairs = 0
        transmittance = remaining
        so_far = channel_add_scaled(so_far, weight, channel_broadcast(batch, at + RECORD_COLOR, channels))
        used |= np.int64(any_lane(touched)) << pair
    store(planes, start, transmittance)
    store(stops, start, stop)
    channel_store(planes, start + TILE_PIXELS, TILE_PIXELS, so_far)
    return used, any_lane(is_open)


@kernel
def _blend_tile(
    first, last, flatten_ids, records, channels, x0, y0, open_blocks, planes, stops, batch, block_bits, pair_blocks
):
    """Composite the pairs ``first`` to ``last`` into ``planes``: transmittance, then the channels.

    ``open_blocks`` are the blocks with open pixels, as bits; ``pair_blocks`` is set to the blocks that a pair changed.
    """
    columns, rows = lane_grid()
    center_x, center_y = np.float32(x0 + 0.5), np.float32(y0 + 0.5)
    stride = records.shape[1]
    used_bits = np.empty(BATCH, np.uint32)
    begin = first
    while begin < last and open_blocks != 0:
        count = min(BATCH, last - begin)
        _load_batch(begin, count, flatten_ids, records, center_x, center_y, batch, block_bits)
        used_bits[:] = 0
        waiting = open_blocks
        while waiting != 0:
            block = lowest_bit(waiting)
            waiting &= waiting - 1
            pairs = words_with(block_bits, block)
            if pairs != 0:
                used, is_open = _blend_block(
                    block, pairs, begin - first, stride, batch, channels, columns, rows, planes, stops
                )
                set_in_words(used_bits, block, used)
                if not is_open:
                    open_blocks &= ~(1 << block)
        for pair in range(count):
            pair_blocks[begin + pair] = used_bits[pair]
        begin += count
    for pair in range(begin, last):
        pair_blocks[pair] = 0


@kernel
def _write_tile(image, x0, y0, planes, channels, backgrounds, colors, alphas):
    """Write the pixels of a tile that lies inside the image."""
    width, depth = alphas.shape[2], len(channels)
    flat_colors, flat_alphas = colors.reshape(-1), alphas.reshape(-1)
    behind = channel_broadcast(backgrounds.reshape(-1), image * depth, channels)
    for block in range(NUM_BLOCKS):
        row, column = y0 + block // BLOCKS_ACROSS * BLOCK_ROWS, x0 + block % BLOCKS_ACROSS * BLOCK_COLUMNS
        pixel, start = (image * alphas.shape[1] + row) * width + column, block * LANES
        transmittance = load(planes, start)
        seen = channel_load(planes, start + TILE_PIXELS, TILE_PIXELS, channels)
        store_pixels(flat_colors, pixel * depth, width * depth, channel_add_scaled(seen, transmittance, behind))
        store_pixels(flat_alphas, pixel, width, (1.0 - transmittance,))


@kernel
def composite(
    begin,
    step,
    shares,  # [S + 1] first tile of each share
    grid,  # (tiles_x, tiles_y)
    tile_starts,  # [I * tiles + 1]
    flatten_ids,  # [P] int32
    records,  # [M, R]
    channels,
    backgrounds,  # [I, D]
    colors,  # [I, H, W, D] written
    alphas,  # [I, H, W, 1] written
    pair_blocks,  # [P] uint32, written: the blocks of its tile that a pair changed, as bits
    stops,  # [I * tiles, TILE_PIXELS] written: the number in its tile of the pair that ends a pixel; -1 outside
):
    """Render the tiles of shares ``begin``, ``begin + step``, ..."""
    height, width = alphas.shape[1], alphas.shape[2]
    planes, batch = aligned_floats((1 + len(channels)) * TILE_PIXELS), aligned_floats(BATCH * records.shape[1])
    block_bits = np.empty(BATCH, np.uint32)
    for share in range(begin, len(shares) - 1, step):
        for tile in range(shares[share], shares[share + 1]):
            image, x0, y0, num_columns, num_rows = tile_place(tile, grid, width, height)
            first, last = tile_starts[tile], tile_starts[tile + 1]
            own_stops = stops[tile]
            planes[:TILE_PIXELS] = 1.0
            planes[TILE_PIXELS:] = 0.0
            if num_columns == TILE_SIZE and num_rows == TILE_SIZE:
                own_stops[:] = NEVER
            else:
                own_stops[:] = -1.0
                for row in range(num_rows):
                    start = row_start(row)
                    for column in range(num_columns):
                        own_stops[pixel_of(start, column)] = NEVER
            _blend_tile(
                first,
                last,
                flatten_ids,
                records,
                channels,
                x0,
                y0,
                blocks_inside(num_columns, num_rows),
                planes,
                own_stops,
                batch,
                block_bits,
                pair_blocks,
            )
            if len(channels) <= MOST_SHUFFLED and num_columns == TILE_SIZE and num_rows == TILE_SIZE:
                _write_tile(image, x0, y0, planes, channels, backgrounds, colors, alphas)
                continue
            for row in range(num_rows):
                start = row_start(row)
                row_alphas, row_colors = alphas[image, y0 + row, x0:], colors[image, y0 + row, x0:]
                for column in range(num_columns):
                    pixel = pixel_of(start, column)
                    transmittance = planes[pixel]
                    row_alphas[column, 0] = np.float32(1.0) - transmittance
                    for k in range(len(channels)):
                        seen = planes[(1 + k) * TILE_PIXELS + pixel]
                        row_colors[column, k] = seen + transmittance * backgrounds[image, k]
