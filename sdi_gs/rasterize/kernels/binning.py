"""Lists, for every tile, the Gaussians whose box touches it, front to back.

One radix sort of the depths per image, then one counting sort into tiles: both stable, so equal depths keep the
order of the Gaussians, as in gsplat. Gaussians are items 0 .. M-1, sorted by image: those of image i are
``image_starts[i]`` to ``image_starts[i + 1]``.

Letters: I images, M items, P (Gaussian, tile) pairs.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from sdi_gs.rasterize.kernels.projection import TILE_SIZE
from sdi_gs.rasterize.kernels.simd import KERNEL_OPTIONS, ceil_to_int, floor_to_int

_DIGIT_BITS = 11
_NUM_DIGITS = 1 << _DIGIT_BITS


@njit(**KERNEL_OPTIONS)
def _tile_span(center, radius, num_tiles):
    """First and one-past-last tile along one axis; the same arithmetic as in the projection."""
    inverse_size = np.float32(1.0 / TILE_SIZE)
    low = floor_to_int((center - radius) * inverse_size)
    high = ceil_to_int((center + radius) * inverse_size)
    return min(max(low, 0), num_tiles), min(max(high, 0), num_tiles)


@njit(**KERNEL_OPTIONS)
def _order_by_depth(items, depth_bits):
    """Stable least-significant-digit radix sort of ``items`` by the bits of their (positive) depths."""
    count = len(items)
    keys, other_keys = np.empty(count, np.uint32), np.empty(count, np.uint32)
    other_items = np.empty(count, np.int32)
    histogram = np.zeros((3, _NUM_DIGITS), np.int32)
    for i in range(count):
        key = depth_bits[items[i]]
        keys[i] = key
        for digit in range(3):
            histogram[digit, (key >> np.uint32(_DIGIT_BITS * digit)) & np.uint32(_NUM_DIGITS - 1)] += 1
    for digit in range(3):
        shift = np.uint32(_DIGIT_BITS * digit)
        starts = histogram[digit]
        total, is_constant = 0, False
        for value in range(_NUM_DIGITS):
            size = starts[value]
            is_constant |= size == count
            starts[value] = total
            total += size
        if is_constant:
            continue
        for i in range(count):
            value = (keys[i] >> shift) & np.uint32(_NUM_DIGITS - 1)
            place = starts[value]
            starts[value] = place + 1
            other_keys[place], other_items[place] = keys[i], items[i]
        keys, other_keys, items, other_items = other_keys, keys, other_items, items
    return items


@njit(**KERNEL_OPTIONS)
def bin_image(
    image,
    tiles_x,
    tiles_y,
    image_starts,  # [I + 1]
    means2d,  # [M, 2]
    radii,  # [M, 2] int32
    depth_bits,  # [M] uint32, the depths' bits
    item_starts,  # [M + 1] first pair of each item in item-major order
    tile_starts,  # [I * tiles + 1] written for this image: first pair of each tile in tile-major order
    flatten_ids,  # [P] int32, written: item of each pair, tile-major
    pair_slots,  # [P] int32, written: the pair's place in item-major order
):
    """Fill the tile lists of one image. Its pairs lie in the same range in both orders."""
    begin, end = image_starts[image], image_starts[image + 1]
    num_tiles = tiles_x * tiles_y
    cursors = np.zeros(num_tiles + 1, np.int64)
    visible = np.empty(end - begin, np.int32)
    num_visible = 0
    for item in range(begin, end):
        if item_starts[item] == item_starts[item + 1]:
            continue
        visible[num_visible] = item
        num_visible += 1
        left, right = _tile_span(means2d[item, 0], np.float32(radii[item, 0]), tiles_x)
        top, bottom = _tile_span(means2d[item, 1], np.float32(radii[item, 1]), tiles_y)
        for row in range(top, bottom):
            for column in range(left, right):
                cursors[row * tiles_x + column] += 1
    start = item_starts[begin]
    for tile in range(num_tiles):
        tile_starts[image * num_tiles + tile] = start
        start += cursors[tile]
        cursors[tile] = tile_starts[image * num_tiles + tile]
    tile_starts[(image + 1) * num_tiles] = start
    for item in _order_by_depth(visible[:num_visible], depth_bits):
        left, right = _tile_span(means2d[item, 0], np.float32(radii[item, 0]), tiles_x)
        top, bottom = _tile_span(means2d[item, 1], np.float32(radii[item, 1]), tiles_y)
        slot = item_starts[item]
        for row in range(top, bottom):
            for column in range(left, right):
                place = cursors[row * tiles_x + column]
                cursors[row * tiles_x + column] = place + 1
                flatten_ids[place], pair_slots[place] = item, slot
                slot += 1
