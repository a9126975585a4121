"""List, for every tile, the Gaussians whose box touches it, front to back.

One radix sort of the depths per image, then one counting sort into tiles: both stable, so equal depths keep the
order of the Gaussians, as in gsplat. Threads share the counting sort by bands of tile rows. Gaussians are items
0 .. M-1, sorted by image: those of image i are ``image_starts[i]`` to ``image_starts[i + 1]``.

Letters: C cameras, N Gaussians (1 and M for packed ones), I images, M items, V visible items of an image, P (Gaussian,
tile) pairs.
"""

from __future__ import annotations

import numpy as np

from sdi_gs.rasterize.kernels.jit import kernel
from sdi_gs.rasterize.kernels.projection import TILE_SIZE
from sdi_gs.rasterize.kernels.simd import ceil_to_int, floor_to_int

# Bits sorted by at once, at most: for few keys, going through the digits takes longer than going through the keys.
_MANY_KEYS, _FEW_KEYS_BITS, _MANY_KEYS_BITS = 4096, 8, 12


@kernel
def _tile_span(center, radius, num_tiles):
    """Return the first and one-past-last tile along one axis, with the same arithmetic as the projection."""
    inverse_size = np.float32(1.0 / TILE_SIZE)
    low = floor_to_int((center - radius) * inverse_size)
    high = ceil_to_int((center + radius) * inverse_size)
    return min(max(low, 0), num_tiles), min(max(high, 0), num_tiles)


@kernel
def list_starts(
    tiles_per_gauss,  # [C, N] int32
    item_starts,  # [M + 1] written: first pair of each item in item-major order
):
    """Sum the pairs of all items, and return their number."""
    tiles_of_item, total = tiles_per_gauss.reshape(-1), np.int64(0)
    item_starts[0] = 0
    for item in range(len(tiles_of_item)):
        total += np.int64(tiles_of_item[item])
        item_starts[item + 1] = total
    return total


@kernel
def _order(keys, lowest, highest):
    """Return the indices [V] that sort the keys in ascending order (stable radix sort, least significant digit first).

    ``keys`` [V] uint32 are the bits of positive floats, which sort like the floats; the array is overwritten. Those of
    a scene's depths share their highest bits, which need no sorting.
    """
    count, differing = len(keys), 0
    while (np.int64(highest) - np.int64(lowest)) >> differing > 0:
        differing += 1
    most_bits = _MANY_KEYS_BITS if count >= _MANY_KEYS else _FEW_KEYS_BITS
    num_digits = max(1, -(-differing // most_bits))
    digit_bits = -(-differing // num_digits)
    num_values = 1 << digit_bits
    mask = np.uint32(num_values - 1)
    other_keys = np.empty(count, np.uint32)
    places, other_places = np.arange(count, dtype=np.uint32), np.empty(count, np.uint32)
    starts = np.empty(num_values, np.uint32)
    for i in range(count):
        keys[i] -= lowest
    for digit in range(num_digits):
        shift, total = np.uint32(digit_bits * digit), np.uint32(0)
        starts[:] = 0
        for i in range(count):
            starts[(keys[i] >> shift) & mask] += np.uint32(1)
        for value in range(num_values):
            size = starts[value]
            starts[value] = total
            total += size
        for i in range(count):
            value = (keys[i] >> shift) & mask
            place = starts[value]
            starts[value] = place + np.uint32(1)
            other_keys[place], other_places[place] = keys[i], places[i]
        keys, other_keys, places, other_places = other_keys, keys, other_places, places
    return places


@kernel
def sort_images(
    begin,
    step,
    grid,  # (tiles_x, tiles_y)
    image_starts,  # [I + 1]
    means2d,  # [C, N, 2]
    radii,  # [C, N, 2] int32
    depths,  # [C, N]
    item_starts,  # [M + 1] first pair of each item in item-major order
    tile_starts,  # [I * tiles + 1] written: first pair of each tile in tile-major order
    num_visible,  # [I] written
    spans,  # [M, 4] int32, written for visible items: left, right, top and bottom of their tiles
    sorted_items,  # [M] int32, written from the image's start on: the visible items, front to back
):
    """Sort the visible items of images ``begin``, ``begin + step``, ... by depth, and count the boxes over tiles."""
    centers, extents, depth_bits = means2d.reshape(-1, 2), radii.reshape(-1, 2), depths.reshape(-1).view(np.uint32)
    for image in range(begin, len(image_starts) - 1, step):
        _sort_image(
            image,
            grid,
            image_starts,
            centers,
            extents,
            depth_bits,
            item_starts,
            tile_starts,
            num_visible,
            spans,
            sorted_items,
        )


@kernel
def _sort_image(
    image,
    grid,
    image_starts,
    centers,
    extents,
    depth_bits,
    item_starts,
    tile_starts,
    num_visible,
    spans,
    sorted_items,
):
    """Sort and count one image; see ``sort_images``."""
    tiles_x, tiles_y = grid
    num_tiles = tiles_x * tiles_y
    begin, end = image_starts[image], image_starts[image + 1]
    visible, keys = np.empty(end - begin, np.int32), np.empty(end - begin, np.uint32)
    # +1 and -1 at the corners of each box: their sums along both axes count the boxes over each tile.
    corners = np.zeros((tiles_y + 1, tiles_x + 1), np.int64)
    count, lowest, highest = 0, np.uint32(0xFFFFFFFF), np.uint32(0)
    for item in range(begin, end):
        if item_starts[item] == item_starts[item + 1]:
            continue
        left, right = _tile_span(centers[item, 0], np.float32(extents[item, 0]), tiles_x)
        top, bottom = _tile_span(centers[item, 1], np.float32(extents[item, 1]), tiles_y)
        span = spans[item]
        span[0], span[1], span[2], span[3] = left, right, top, bottom
        bits = depth_bits[item]
        visible[count], keys[count] = item, bits
        lowest, highest = min(lowest, bits), max(highest, bits)
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
        places = _order(keys[:count], lowest, highest)
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
def _fill_band(
    band,
    num_bands,
    grid,
    image_starts,
    item_starts,
    tile_starts,
    num_visible,
    spans,
    sorted_items,
    flatten_ids,
    pair_slots,
):
    """Fill the tile lists of one band; see ``fill_tiles``."""
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
        first_slot = item_starts[item] + (top - span[2]) * (right - left)
        # One loop over rows and columns: its end is guessed wrongly once where those of two would be twice.
        tile, column = top * tiles_x + left, left
        for slot in range(first_slot, first_slot + (bottom - top) * (right - left)):
            target = np.uint64(cursors[np.uint32(tile)])
            cursors[np.uint32(tile)] += 1
            flatten_ids[target], pair_slots[target] = item, slot
            is_last = column + 1 == right
            tile += tiles_x - (right - left) + 1 if is_last else 1
            column = left if is_last else column + 1


@kernel
def fill_tiles(
    begin,
    step,
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
    """Fill the tile lists of bands ``begin``, ``begin + step``, ... of tile rows.

    An image's bands hold about the same number of pairs, and are numbered over all images. An image's pairs occupy the
    same range in item-major and tile-major order.
    """
    for band in range(begin, num_bands * (len(image_starts) - 1), step):
        _fill_band(
            band,
            num_bands,
            grid,
            image_starts,
            item_starts,
            tile_starts,
            num_visible,
            spans,
            sorted_items,
            flatten_ids,
            pair_slots,
        )
