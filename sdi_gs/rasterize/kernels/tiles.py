"""What the tile loops share: the record of an item, the blocks of a tile, and alpha.

A tile is 16x16 pixels, a block one vector of 4x4 or 4x2 of them. A plane holds one value per pixel, block by block.

Letters: C cameras, N Gaussians, M items (a Gaussian in an image), D channels, R floats of a record.
"""

from __future__ import annotations

import math

import numpy as np

from sdi_gs.rasterize.kernels.jit import kernel
from sdi_gs.rasterize.kernels.projection import TILE_SIZE
from sdi_gs.rasterize.kernels.simd import LANES, lane_numbers, round_down

MAX_ALPHA = 0.999
MOST_SHUFFLED = 4
"""Channels whose pixels are read and written by vectors: more would take too long to compile."""

TILE_PIXELS = TILE_SIZE * TILE_SIZE
# A block is one vector, four pixels across; a tile is four blocks across. Both fit the lanes' grid of four across.
BLOCK_COLUMNS, BLOCK_ROWS = 4, LANES // 4
BLOCKS_ACROSS, NUM_BLOCKS = TILE_SIZE // 4, TILE_SIZE * TILE_SIZE // LANES

# Fields of a splat record. At offset (dx, dy) from its centre an item has the alpha
# 2 ^ (LOG2_OPACITY + QUADRATIC_XX dx^2 + QUADRATIC_XY dx dy + QUADRATIC_YY dy^2).
CENTER_X, CENTER_Y, QUADRATIC_XX, QUADRATIC_XY, QUADRATIC_YY, LOG2_OPACITY = range(6)
# On a line of fixed dx the alpha is largest at dy = RIDGE_Y dx, on one of fixed dy at dx = RIDGE_X dy.
RIDGE_X, RIDGE_Y, RECORD_COLOR = 6, 7, 8

LOG2_E = 1.4426950408889634

# First column and row of each block in its tile.
BLOCK_LEFT = np.array([block % BLOCKS_ACROSS * BLOCK_COLUMNS for block in range(NUM_BLOCKS)], np.float32)
BLOCK_TOP = np.array([block // BLOCKS_ACROSS * BLOCK_ROWS for block in range(NUM_BLOCKS)], np.float32)


def record_length(num_channels: int) -> int:
    """Return the floats of a splat record, in whole vectors."""
    return -(-(RECORD_COLOR + num_channels) // LANES) * LANES


@kernel
def aligned_floats(count):
    """Return an uninitialised array that begins with a cache line, so that no vector of it lies in two."""
    buffer = np.empty(count + 15, np.float32)
    skipped = (-np.int64(buffer.ctypes.data) // 4) % 16
    return buffer[skipped : skipped + count]


@kernel
def write_records(
    begin,
    end,
    num_gaussians,  # N; items are C times as many
    item_starts,  # [M + 1] first pair of each item
    means2d,  # [C, N, 2]
    conics,  # [C, N, 3]
    opacities,  # [M], or [N] for all cameras alike
    colors,  # [M, D] or [N, D]
    records,  # [M, R] written where an item has pairs
):
    """Write the records of Gaussians ``begin`` to ``end`` in all images: the values that the tile loops read."""
    shared_opacities, shared_colors = len(opacities) == num_gaussians, len(colors) == num_gaussians
    flat_means2d, flat_conics = means2d.reshape(-1, 2), conics.reshape(-1, 3)
    for gaussian in range(begin, end):
        log2_opacity = np.float32(0.0)
        if shared_opacities:
            log2_opacity = math.log2(opacities[gaussian])
        for item in range(gaussian, len(records), num_gaussians):
            if item_starts[item] == item_starts[item + 1]:
                continue
            record = records[item]
            a, b, c = flat_conics[item, 0], flat_conics[item, 1], flat_conics[item, 2]
            record[CENTER_X], record[CENTER_Y] = flat_means2d[item, 0], flat_means2d[item, 1]
            record[QUADRATIC_XX] = np.float32(-0.5 * LOG2_E) * a
            record[QUADRATIC_XY] = np.float32(-LOG2_E) * b
            record[QUADRATIC_YY] = np.float32(-0.5 * LOG2_E) * c
            record[LOG2_OPACITY] = log2_opacity if shared_opacities else math.log2(opacities[item])
            record[RIDGE_X], record[RIDGE_Y] = -b / a, -b / c
            color = colors[gaussian if shared_colors else item]
            for k in range(colors.shape[1]):
                record[RECORD_COLOR + k] = color[k]


@kernel
def tile_place(tile, grid, width, height):
    """Return a tile's image, first column and row, and numbers of columns and rows inside the image."""
    tiles_x, tiles_y = grid
    image = tile // (tiles_x * tiles_y)
    in_image = tile - image * tiles_x * tiles_y
    tile_y = in_image // tiles_x
    x0, y0 = (in_image - tile_y * tiles_x) * TILE_SIZE, tile_y * TILE_SIZE
    return image, x0, y0, min(TILE_SIZE, width - x0), min(TILE_SIZE, height - y0)


@kernel
def row_start(row):
    """Return the index of a tile's row in a plane; its columns 4, 8 and 12 start 1, 2 and 3 blocks further."""
    return row // BLOCK_ROWS * (BLOCKS_ACROSS * LANES) + row % BLOCK_ROWS * BLOCK_COLUMNS


@kernel
def pixel_of(row_start, column):
    """Return the index of a tile's pixel in a plane."""
    return row_start + column // BLOCK_COLUMNS * LANES + column % BLOCK_COLUMNS


@kernel
def blocks_inside(num_columns, num_rows):
    """Return the blocks with pixels inside the image, as bits."""
    bits = 0
    for block in range(NUM_BLOCKS):
        column, row = block % BLOCKS_ACROSS * BLOCK_COLUMNS, block // BLOCKS_ACROSS * BLOCK_ROWS
        if column < num_columns and row < num_rows:
            bits |= 1 << block
    return bits


@kernel
def lane_grid():
    """Return each lane's column and row in a grid of four columns."""
    lanes = lane_numbers()
    rows = round_down(lanes * 0.25)
    return lanes - rows * 4.0, rows


@kernel
def exponent(record, dx, dy):
    """Return log2 of an item's alpha at offsets from its centre."""
    along_x = record[QUADRATIC_XX] * dx + record[QUADRATIC_XY] * dy
    return dx * along_x + (dy * (record[QUADRATIC_YY] * dy) + record[LOG2_OPACITY])
