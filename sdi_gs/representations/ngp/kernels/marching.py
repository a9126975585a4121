"""Walk rays through the occupancy grid, once to count the samples and once to write them.

Letters: R rays, P samples, G cells along a side of the grid.
"""

from __future__ import annotations

import numpy as np

from sdi_gs.rasterize.kernels.jit import kernel

MOST_PLACES = np.float32(2**20)
"""Places along a ray at most, many times those of any config: a walk ends even if its step is lost in rounding."""


@kernel
def _is_occupied(x, y, z, occupied, radius, cells_per_unit):
    last = np.int64(occupied.shape[0] - 1)
    i = min(max(np.int64((x + radius) * cells_per_unit), np.int64(0)), last)
    j = min(max(np.int64((y + radius) * cells_per_unit), np.int64(0)), last)
    k = min(max(np.int64((z + radius) * cells_per_unit), np.int64(0)), last)
    return occupied[np.uint64(i), np.uint64(j), np.uint64(k)] != 0


@kernel
def count_samples(
    begin,
    end,
    origins,  # [R, 3]
    directions,  # [R, 3]
    near,  # [R]
    far,  # [R]
    offsets,  # [R]
    occupied,  # [G, G, G] uint8
    radius,
    step,
    counts,  # [R] written
):
    """Count the samples of each of rays ``begin`` to ``end``."""
    cells_per_unit = np.float32(occupied.shape[0]) / (np.float32(2.0) * radius)
    for ray in range(begin, end):
        ox, oy, oz = origins[ray, 0], origins[ray, 1], origins[ray, 2]
        dx, dy, dz = directions[ray, 0], directions[ray, 1], directions[ray, 2]
        count, number = 0, offsets[ray]
        distance = near[ray] + number * step
        while distance < far[ray] and number < MOST_PLACES:
            x, y, z = ox + distance * dx, oy + distance * dy, oz + distance * dz
            count += _is_occupied(x, y, z, occupied, radius, cells_per_unit)
            number += np.float32(1.0)
            distance = near[ray] + number * step
        counts[ray] = count


@kernel
def write_samples(
    begin,
    end,
    origins,  # [R, 3]
    directions,  # [R, 3]
    near,  # [R]
    far,  # [R]
    offsets,  # [R]
    occupied,  # [G, G, G] uint8
    radius,
    step,
    ray_starts,  # [R + 1]
    distances,  # [P] written
    points,  # [P, 3] written
    ray_ids,  # [P] written
):
    """Write the samples that ``count_samples`` counted."""
    cells_per_unit = np.float32(occupied.shape[0]) / (np.float32(2.0) * radius)
    for ray in range(begin, end):
        ox, oy, oz = origins[ray, 0], origins[ray, 1], origins[ray, 2]
        dx, dy, dz = directions[ray, 0], directions[ray, 1], directions[ray, 2]
        place, number = ray_starts[ray], offsets[ray]
        distance = near[ray] + number * step
        # The bound protects neighbours if rounding differs between the two walks.
        while distance < far[ray] and number < MOST_PLACES and place < ray_starts[ray + 1]:
            x, y, z = ox + distance * dx, oy + distance * dy, oz + distance * dz
            if _is_occupied(x, y, z, occupied, radius, cells_per_unit):
                distances[place] = distance
                points[place, 0], points[place, 1], points[place, 2] = x, y, z
                ray_ids[place] = ray
                place += 1
            number += np.float32(1.0)
            distance = near[ray] + number * step
