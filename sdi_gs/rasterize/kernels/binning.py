"""List, for every tile, the Gaussians whose box touches it, front to back.

One radix sort of the depths per image, then one counting sort into tiles: both stable, so equal depths keep the
order of the Gaussians, as in gsplat. Threads share the counting sort by bands of tile rows. Gaussians are items
0 .. M-1, sorted by image: those of image i are ``image_starts[i]`` to ``image_starts[i + 1]``.

Letters: I images, M items, V visible items of an image, P (Gaussian, tile) pairs.
"""

from __future__ import annotations

import numpy as np

from sdi_gs.rasterize.kernels.jit import kernel
from sdi_gs.rasterize.kernels.projection import TILE_SIZE
from sdi_gs.rasterize.kernels.simd import ceil_to_int, floor_to_int

_DIGIT_BITS = 11
_NUM_DIGITS = 1 << _DIGIT_BITS
_DIGIT_MASK = np.uint32(_NUM_DIGITS - 1)


@kernel
def _tile_span(center, radius, num_tiles):
    """Return the first and one-past-last tile along one axis, with the same arithmetic as the projection."""
    inverse_size = np.float32(1.0 / TILE_SIZE)
    low = floor_to_int((center - radius) * inverse_size)
    high = ceil_to_int((center + radius) * inverse_size)
    return min(max(low, 0), num_tiles), min(max(high, 0), num_tiles)


@kernel
def _order(keys):
    """Return the indices [V] that sort the keys in ascending order (stable radix sort, least significant digit first).

    ``keys`` [V] uint32 are the bits of positive floats, which sort like the floats; the array is overwritten.
    """
    count = len(keys)
    other_keys = np.empty(count, np.uint32)
    places, other_places = np.arange(count, dtype=np.uint32), np.empty(count, np.uint32)
    histogram = np.zeros((3, _NUM_DIGITS), np.uint32)
    for i in range(count):
        for digit in range(3):
            histogram[digit, (keys[i] >> np.uint32(_DIGIT_BITS * digit)) & _DIGIT_MASK] += np.uint32(1)
    for digit in range(3):
        shift, starts = np.uint32(_DIGIT_BITS * digit), histogram[digit]
        if starts[(keys[0] >> shift) & _DIGIT_MASK] == count:
            continue
        total = np.uint32(0)
        for value in range(_NUM_DIGITS):
            size = starts[value]
            starts[value] = total
            total += size
        for i in range(count):
            value = (keys[i] >> shift) & _DIGIT_MASK
            place = starts[value]
            starts[value] = place + np.uint32(1)
            other_keys[place], other_places[place] = keys[i], places[i]
        keys, other_keys, places, other_places = other_keys, keys, other_places, places
    return places


@kernel
def sort_image(
    image,
    grid,  # (tiles_x, tiles_y)
    image_starts,  # [I + 1]
    means2d,  # [M, 2]
    radii,  # [M, 2] int32
    depth_bits,  # [M] uint32, the depths' bits
    item_starts,  # [M + 1] first pair of each item in item-major order
    tile_starts,  # [I * tiles + 1] written for this image: first pair of each tile in tile-major order
    num_visible,  # [I] written
    spans,  # [M, 4] int32, written for visible items: left, right, top and bottom of their tiles
    sorted_items,  # [M] int32, written from image_starts[image] on: the visible items, front to back
):
    """Sort the visible items of one image by depth, and count the boxes over each of its tiles."""
    tiles_x, tiles_y = grid
    num_tiles = tiles_x * tiles_y
    begin, end = image_starts[image], image_starts[image + 1]
    visible, keys = np.empty(end - begin, np.int32), np.empty(end - begin, np.uint32)
    # +1 and -1 at the corners of each box: their sums along both axes count the boxes over each tile.
    corners = np.zeros((tiles_y + 1, tiles_x + 1), np.int64)
    count = 0
    for item in range(begin, end):
        if item_starts[item] == item_starts[item + 1]:
            continue
        left, right = _tile_span(means2d[item, 0], np.float32(radii[item, 0]), tiles_x)
        top, bottom = _tile_span(means2d[item, 1], np.float32(radii[item, 1]), tiles_y)
        span = spans[item]
        span[0], span[1], span[2], span[3] = left, right, top, bottom
        visible[count], keys[count] = item, depth_bits[item]
        count += 1
        corners[top, left] += 1
        corners[top, right] -= 1
        corners[bottom, left] -= 1
        corners[bottom, right] += 1
    start = item_starts[begin]
    for row in range(tiles_y):
        size = 0
        for column in range(tiles_x):
            corners[row + 1, column] += corners[row, column]
            size += corners[row, column]
            tile_starts[image * num_tiles + row * tiles_x + column] = start
            start += size
    tile_starts[(image + 1) * num_tiles] = item_starts[end]
    num_visible[image] = count
    if count > 0:
        places = _order(keys[:count])
        for i in range(count):
            sorted_items[begin + i] = visible[places[i]]


@kernel
def _band_row(first_tile, grid, tile_starts, share):
    """Return the first tile row of an image with at least ``share`` of the image's pairs above it."""
    tiles_x, tiles_y = grid
    first, last = tile_starts[first_tile], tile_starts[first_tile + tiles_x * tiles_y]
    wanted = first + np.int64(share * np.float64(last - first))
    row = 0
    while row < tiles_y and tile_starts[first_tile + row * tiles_x] < wanted:
        row += 1
    return row


@kernel
def fill_tiles(
    band,
    num_bands,  # per image
    grid,  # (tiles_x, tiles_y)
    image_starts,  # [I + 1]
    item_starts,  # [M + 1]
    tile_starts,  # [I * tiles + 1]
    num_visible,  # [I]
    spans,  # [M, 4] int32
    sorted_items,  # [M] int32
    flatten_ids,  # [P] int32, written: item of each pair, tile-major
    pair_slots,  # [P] int32, written: the pair's place in item-major order
):
    """Fill the tile lists of one band of tile rows; an image's bands hold about the same number of pairs.

    Bands are numbered over all images. An image's pairs occupy the same range in item-major and tile-major order.
    """
    tiles_x, tiles_y = grid
    image, band = band // num_bands, band % num_bands
    first_tile = image * tiles_x * tiles_y
    first_row = _band_row(first_tile, grid, tile_starts, band / num_bands)
    last_row = tiles_y if band + 1 == num_bands else _band_row(first_tile, grid, tile_starts, (band + 1) / num_bands)
    cursors = tile_starts[first_tile : first_tile + tiles_x * tiles_y].copy()
    begin = image_starts[image]
    for i in range(begin, begin + num_visible[image]):
        item = np.uint32(sorted_items[i])
        span = spans[item]
        left, right = span[0], span[1]
        top, bottom = max(span[2], first_row), min(span[3], last_row)
        if top >= bottom:
            continue
        slot = item_starts[item] + (top - span[2]) * (right - left)
        for row in range(top, bottom):
            for column in range(left, right):
                tile = np.uint32(row * tiles_x + column)
                target = np.uint64(cursors[tile])
                cursors[tile] += 1
                flatten_ids[target], pair_slots[target] = item, slot
                slot += 1
