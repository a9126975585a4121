"""Samples along rays that lie in occupied cells.

Letters: R rays, P samples of all rays, G cells along a side of the occupancy grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import assert_never

import numpy as np
import torch
from torch import Tensor

from sdi_gs.cameras import Rays
from sdi_gs.representations.ngp.backends import Backend, backend_for
from sdi_gs.representations.ngp.triton_launch import launch, num_programs, triton_kernels

_SMALLEST_RAYS = 256
_CANDIDATES_AT_ONCE = 2**23
"""Places that the torch code tests at a time: a bound on its memory."""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Samples along rays, ray by ray and front to back; each stands for the step around it."""

    distances: Tensor  # [P] from the ray's origin, scene units
    points: Tensor  # [P, 3] world
    ray_ids: Tensor  # [P] int64
    ray_starts: Tensor  # [R + 1] int64, first sample of each ray
    step: float
    """Distance between neighbours, scene units."""

    def __len__(self) -> int:
        return len(self.distances)

    def keep(
        self,
        mask: Tensor,  # [P] bool
    ) -> Samples:
        """Return the samples where ``mask`` holds."""
        before = torch.zeros(len(mask) + 1, dtype=torch.int64, device=mask.device)
        torch.cumsum(mask, 0, out=before[1:])
        chosen = mask.nonzero()[:, 0]
        return Samples(
            distances=self.distances[chosen],
            points=self.points[chosen],
            ray_ids=self.ray_ids[chosen],
            ray_starts=before[self.ray_starts],
            step=self.step,
        )


def cube_spans(rays: Rays, radius: float) -> tuple[Tensor, Tensor]:  # [R], [R]
    """Return the distances at which rays enter and leave the cube [-radius, radius]^3; equal for rays that miss it."""
    # A direction along a face would give 0 / 0.
    tiny = torch.finfo(rays.directions.dtype).tiny
    inverse = 1.0 / torch.where(rays.directions.abs() < tiny, tiny, rays.directions)
    first, second = (-radius - rays.origins) * inverse, (radius - rays.origins) * inverse
    near = torch.minimum(first, second).amax(dim=-1).clamp_min(0.0)
    far = torch.maximum(first, second).amin(dim=-1)
    return near, torch.maximum(near, far)


def march(
    rays: Rays,
    occupied: Tensor,  # [G, G, G] bool, cells of the cube by x, y, z
    radius: float,
    *,
    step: float,
    offsets: Tensor,  # [R] in [0, 1), shares of a step before the first sample
    backend: Backend | None = None,
) -> Samples:
    """Return samples one ``step`` apart in occupied cells of the cube; an offset of 0.5 centres them in their steps."""
    near, far = cube_spans(rays, radius)
    match backend or backend_for(rays.origins):
        case "numba":
            return _march_numba(rays, near, far, occupied, radius, step, offsets)
        case "triton":
            return _march_triton(rays, near, far, occupied, radius, step, offsets)
        case "torch":
            return _march_torch(rays, near, far, occupied, radius, step, offsets)
        case other:
            assert_never(other)


def candidates_per_ray(radius: float, step: float) -> int:
    """Return the most places on a ray: as many as fit the cube's diagonal, all of which the torch code tests."""
    # The longest span of these rays would need a transfer from the device.
    return math.ceil(2.0 * math.sqrt(3.0) * radius / step) + 1


def _march_torch(
    rays: Rays,
    near: Tensor,  # [R]
    far: Tensor,  # [R]
    occupied: Tensor,  # [G, G, G]
    radius: float,
    step: float,
    offsets: Tensor,  # [R]
) -> Samples:
    """Test all candidates of some rays at a time and keep those in occupied cells (the reference)."""
    side, device = occupied.shape[0], near.device
    num_candidates = candidates_per_ray(radius, step)
    numbers = torch.arange(num_candidates, device=device, dtype=near.dtype)
    flat = occupied.flatten()
    chunk = max(_CANDIDATES_AT_ONCE // num_candidates, 1)
    ids, places = [torch.zeros(0, dtype=torch.int64, device=device)], [near.new_zeros(0)]
    for begin in range(0, len(rays), chunk):
        chosen = slice(begin, begin + chunk)
        distances = near[chosen, None] + (numbers + offsets[chosen, None]) * step
        points = rays.origins[chosen, None] + distances[..., None] * rays.directions[chosen, None]
        cells = ((points + radius) * (side / (2.0 * radius))).long().clamp(0, side - 1)
        wanted = flat[(cells[..., 0] * side + cells[..., 1]) * side + cells[..., 2]] & (distances < far[chosen, None])
        ray, number = wanted.nonzero(as_tuple=True)
        ids.append(ray + begin)
        places.append(distances[ray, number])
    ray_ids, distances = torch.cat(ids), torch.cat(places)
    starts = torch.zeros(len(rays) + 1, dtype=torch.int64, device=device)
    counts = torch.zeros_like(starts[1:]).index_add_(0, ray_ids, torch.ones_like(ray_ids))
    torch.cumsum(counts, 0, out=starts[1:])
    points = rays.origins[ray_ids] + distances[:, None] * rays.directions[ray_ids]
    return Samples(distances=distances, points=points, ray_ids=ray_ids, ray_starts=starts, step=step)


def _march_numba(
    rays: Rays, near: Tensor, far: Tensor, occupied: Tensor, radius: float, step: float, offsets: Tensor
) -> Samples:
    from sdi_gs.rasterize.threads import run_on_ranges
    from sdi_gs.representations.ngp.kernels import marching

    arguments = (
        *(t.contiguous().numpy() for t in (rays.origins, rays.directions, near, far, offsets)),
        occupied.contiguous().view(torch.uint8).numpy(),
        np.float32(radius),
        np.float32(step),
    )
    counts = np.empty(len(rays), np.int64)
    run_on_ranges(marching.count_samples, len(rays), _SMALLEST_RAYS, *arguments, counts)
    starts = np.zeros(len(rays) + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    distances, points = torch.empty(int(starts[-1])), torch.empty((int(starts[-1]), 3))
    ray_ids = torch.empty(int(starts[-1]), dtype=torch.int64)
    run_on_ranges(
        marching.write_samples,
        len(rays),
        _SMALLEST_RAYS,
        *arguments,
        starts,
        *(t.numpy() for t in (distances, points, ray_ids)),
    )
    return Samples(distances=distances, points=points, ray_ids=ray_ids, ray_starts=torch.from_numpy(starts), step=step)


def num_marched(
    ray_starts: Tensor,  # [R + 1] int64
) -> int:
    """Return P, for which the host waits: the memory for samples is its own to ask for."""
    return int(ray_starts[-1])


def _march_triton(
    rays: Rays, near: Tensor, far: Tensor, occupied: Tensor, radius: float, step: float, offsets: Tensor
) -> Samples:
    kernels, num_rays, side = triton_kernels("marching"), len(rays), occupied.shape[0]
    where = (rays.origins, rays.directions, near, far, offsets)
    given = (*(tensor.contiguous() for tensor in where), occupied.contiguous().view(torch.uint8))
    sizes = (num_rays, candidates_per_ray(radius, step), radius, step, side / (2.0 * radius))
    programs = (num_programs(num_rays, kernels.RAYS),)
    # Both walks must round alike.
    options = {"like": near, "fuse_rounding": False, "SIDE": side, "RAYS": kernels.RAYS}
    starts = torch.zeros(num_rays + 1, dtype=torch.int64, device=near.device)
    counts = torch.empty_like(starts[1:])
    launch(kernels.count_samples, programs, *given, counts, *sizes, **options)
    torch.cumsum(counts, 0, out=starts[1:])
    total = num_marched(starts)
    distances, points = near.new_empty(total), near.new_empty((total, 3))
    ray_ids = starts.new_empty(total)
    launch(kernels.write_samples, programs, *given, starts, distances, points, ray_ids, *sizes, **options)
    return Samples(distances=distances, points=points, ray_ids=ray_ids, ray_starts=starts, step=step)
