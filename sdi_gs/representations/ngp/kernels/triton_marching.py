"""Walk rays through the occupancy grid in Triton, once to count the samples and once to write them.

Launched without fused multiply-adds, so that both walks, and torch operations, round alike.

Letters: R rays, P samples, G cells along a side of the grid.
"""

# ruff: noqa: N803
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import triton
import triton.language as tl

RAYS = 128
"""Rays of a program."""


@triton.jit
def _ray(origins, directions, ray, inside):
    """Return origins and directions by coordinates."""
    first = 3 * ray
    return (
        tl.load(origins + first, mask=inside, other=0.0),
        tl.load(origins + first + 1, mask=inside, other=0.0),
        tl.load(origins + first + 2, mask=inside, other=0.0),
        tl.load(directions + first, mask=inside, other=0.0),
        tl.load(directions + first + 1, mask=inside, other=0.0),
        tl.load(directions + first + 2, mask=inside, other=0.0),
    )


@triton.jit
def _cell(x, radius, cells_per_unit, SIDE: tl.constexpr):
    """Return the cell of a coordinate along its axis."""
    return tl.minimum(tl.maximum(((x + radius) * cells_per_unit).to(tl.int32), 0), SIDE - 1)


@triton.jit
def _is_occupied(x, y, z, occupied, wanted, radius, cells_per_unit, SIDE: tl.constexpr):
    """Mark the wanted points in occupied cells."""
    i, j = _cell(x, radius, cells_per_unit, SIDE), _cell(y, radius, cells_per_unit, SIDE)
    cell = (i * SIDE + j) * SIDE + _cell(z, radius, cells_per_unit, SIDE)
    return wanted & (tl.load(occupied + cell, mask=wanted, other=0) != 0)


@triton.jit
def _num_places(begin, end, places, step):
    """Return the number of places to test, for the longest of the rays."""
    return tl.minimum(places, tl.max((end - begin) / step, axis=0).to(tl.int32) + 2)


@triton.jit
def count_samples(
    origins,  # [R, 3]
    directions,  # [R, 3]
    near,  # [R]
    far,  # [R]
    offsets,  # [R]
    occupied,  # [G, G, G] uint8
    counts,  # [R] int64 written
    count,
    places,
    radius,
    step,
    cells_per_unit,
    SIDE: tl.constexpr,
    RAYS: tl.constexpr,
):
    """Count the samples among the first ``places`` of each ray."""
    ray = tl.program_id(0) * RAYS + tl.arange(0, RAYS)
    inside = ray < count
    ox, oy, oz, dx, dy, dz = _ray(origins, directions, ray, inside)
    begin, end = tl.load(near + ray, mask=inside, other=0.0), tl.load(far + ray, mask=inside, other=0.0)
    number = tl.load(offsets + ray, mask=inside, other=0.0)
    found = tl.zeros([RAYS], tl.int64)
    for place in range(_num_places(begin, end, places, step)):
        distance = begin + (place + number) * step
        wanted = distance < end
        x, y, z = ox + distance * dx, oy + distance * dy, oz + distance * dz
        found += _is_occupied(x, y, z, occupied, wanted, radius, cells_per_unit, SIDE).to(tl.int64)
    tl.store(counts + ray, found, mask=inside)


@triton.jit
def write_samples(
    origins,  # [R, 3]
    directions,  # [R, 3]
    near,  # [R]
    far,  # [R]
    offsets,  # [R]
    occupied,  # [G, G, G] uint8
    ray_starts,  # [R + 1] int64
    distances,  # [P] written
    points,  # [P, 3] written
    ray_ids,  # [P] int64 written
    count,
    places,
    radius,
    step,
    cells_per_unit,
    SIDE: tl.constexpr,
    RAYS: tl.constexpr,
):
    """Write the samples that ``count_samples`` counted."""
    ray = tl.program_id(0) * RAYS + tl.arange(0, RAYS)
    inside = ray < count
    ox, oy, oz, dx, dy, dz = _ray(origins, directions, ray, inside)
    begin, end = tl.load(near + ray, mask=inside, other=0.0), tl.load(far + ray, mask=inside, other=0.0)
    number = tl.load(offsets + ray, mask=inside, other=0.0)
    sample = tl.load(ray_starts + ray, mask=inside, other=0)
    for place in range(_num_places(begin, end, places, step)):
        distance = begin + (place + number) * step
        wanted = distance < end
        x, y, z = ox + distance * dx, oy + distance * dy, oz + distance * dz
        here = _is_occupied(x, y, z, occupied, wanted, radius, cells_per_unit, SIDE)
        tl.store(distances + sample, distance, mask=here)
        tl.store(points + 3 * sample, x, mask=here)
        tl.store(points + 3 * sample + 1, y, mask=here)
        tl.store(points + 3 * sample + 2, z, mask=here)
        tl.store(ray_ids + sample, ray.to(tl.int64), mask=here)
        sample += here.to(tl.int64)
