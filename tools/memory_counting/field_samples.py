"""Samples per ray for meta-device counting, measured on a small real field on the CPU.

Letters: R rays, N batches of cameras, G groups of rays.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from memory_counting.meter import Assumptions
from sdi_gs.cameras import camera_rays, sample_cameras
from sdi_gs.representations.ngp.compositing import visible
from sdi_gs.representations.ngp.hash_grid import corners, grid_layout
from sdi_gs.representations.ngp.marching import candidates_per_ray, march
from sdi_gs.representations.ngp.ngp import Ngp
from sdi_gs.settings.compute import fewest
from sdi_gs.settings.ngp import NgpConfig
from sdi_gs.settings.run import RunConfig

BATCHES = 32
"""Number of camera batches that are traced."""
SIDE = 32
"""Side of their pictures in pixels; shares hardly depend on it."""
WARP, ENTRIES_PER_SECTOR = 32, 4
"""Points whose reads a card joins, and entries in 32 bytes."""
OBJECT_RADIUS = 0.5
"""Radius of the object that a mean step marches through, as a share of the field's radius."""


@dataclass(frozen=True, kw_only=True)
class SamplesPerRay:
    """Mean numbers of samples over some rays."""

    tested: float
    """Samples whose density is evaluated."""
    drawn: float
    """Samples with colour and gradients."""
    sector_share: float
    """Sectors of the table that 32 samples after one another read for a corner, per sample."""


@dataclass(frozen=True, kw_only=True)
class SamplesOfSteps:
    """Samples per ray of the steps of a run."""

    mean: SamplesPerRay
    """Over all steps and rays, in a grid that follows its field: the cells of a solid ball are occupied, and those of
    the field at its start."""
    fullest: tuple[SamplesPerRay, ...]
    """Of the step that draws most, by group of rays that are traced at once, in a grid without an empty cell. The first
    has the most samples that a group of any step has."""


def samples_of_rays(config: RunConfig, *, image_size: int) -> SamplesOfSteps:
    """Return the samples per ray of a field with all levels."""
    counts = torch.stack(_counts(config), dim=-1).double()
    compute, pixels = config.compute, image_size**2
    all_rays = config.views_per_step * pixels
    at_once = fewest(compute.views_at_once * pixels, compute.rays_at_once) or all_rays
    groups = max(round(all_rays / at_once), 1)
    means = torch.stack([group.mean(dim=1) for group in counts.tensor_split(groups, dim=1)])  # [G, N, 3]
    share = _sector_share(config)

    def samples(tested: float, drawn: float) -> SamplesPerRay:
        return SamplesPerRay(tested=tested, drawn=drawn, sector_share=share)

    _, tested, drawn = means.mean(dim=(0, 1)).tolist()
    # What is drawn is kept for the backward pass of all groups, so that no more than a step's own sum is held.
    fullest = means[:, means[..., 2].mean(dim=0).argmax()]  # [G, 3]
    # The fullest group comes first, because the allocator of a long run has met it before.
    _, *others = fullest[fullest[:, 2].argsort(descending=True, stable=True)].tolist()
    most_tested, _, most_drawn = means.amax(dim=(0, 1)).tolist()
    of_groups = [samples(most_tested, most_drawn), *(samples(tested, drawn) for tested, _, drawn in others)]
    return SamplesOfSteps(mean=samples(tested, drawn), fullest=tuple(of_groups))


def shares_met(config: NgpConfig, samples: SamplesPerRay) -> Assumptions:
    """Return the assumptions of a meter for these samples per ray."""
    return Assumptions(
        nonzero_share=samples.tested / candidates_per_ray(config.radius, config.step_length),
        mask_share=samples.drawn / max(samples.tested, 1e-9),
        sector_share=samples.sector_share,
    )


@torch.no_grad()
def _counts(config: RunConfig) -> tuple[Tensor, Tensor, Tensor]:  # [N, R] each
    """Return samples of every ray of some steps' views, view by view and row by row.

    They are those in a full grid, those in a grid that follows its field, and those of the full grid that are drawn.
    """
    generator = torch.Generator().manual_seed(config.seed)
    ngp = Ngp(config.ngp, generator=generator, device=torch.device("cpu"))
    # No cell of a new grid is empty: the most that a step can march through.
    ngp.field.num_levels = config.ngp.grid.num_levels
    full = ngp.occupancy.occupied()
    ngp.occupancy.refresh(ngp.density_of)
    followed = ngp.occupancy.occupied() | _ball(config.ngp)
    tested, of_object, drawn = [], [], []
    for _ in range(BATCHES):
        cameras = sample_cameras(config.cameras, config.views_per_step, width=SIDE, height=SIDE, generator=generator)
        rays = camera_rays(cameras)
        offsets = torch.rand(len(rays), generator=generator)
        samples, inside = (
            march(rays, occupied, config.ngp.radius, step=config.ngp.step_length, offsets=offsets)
            for occupied in (full, followed)
        )
        seen = visible(ngp.density_of(samples.points), samples, config.ngp.empty_alpha)
        tested.append(samples.ray_starts.diff())
        of_object.append(inside.ray_starts.diff())
        drawn.append(samples.keep(seen).ray_starts.diff())
    return torch.stack(tested), torch.stack(of_object), torch.stack(drawn)


@torch.no_grad()
def _sector_share(config: RunConfig) -> float:
    """Return the share for samples of one batch of views in a grid that follows its field, over all levels."""
    ngp, generator = config.ngp, torch.Generator().manual_seed(config.seed)
    layout = grid_layout(ngp.grid)
    cameras = sample_cameras(config.cameras, config.views_per_step, width=SIDE, height=SIDE, generator=generator)
    rays = camera_rays(cameras)
    samples = march(
        rays, _ball(ngp), ngp.radius, step=ngp.step_length, offsets=torch.rand(len(rays), generator=generator)
    )
    points = ((samples.points + ngp.radius) / (2.0 * ngp.radius)).clamp(0.0, 1.0)
    warps = points[: len(points) // WARP * WARP]
    found = 0
    for level in range(layout.num_levels):
        entries, _ = corners(warps, layout, level, with_slopes=False)
        sectors = (entries // ENTRIES_PER_SECTOR).unflatten(1, (-1, WARP)).sort(dim=-1).values  # [8, points / 32, 32]
        found += int((sectors.diff(dim=-1) != 0).sum()) + sectors[..., 0].numel()
    return found / (8 * layout.num_levels * len(warps))


def _ball(config: NgpConfig) -> Tensor:  # [G, G, G] bool
    """Return the cells of a grid whose centres lie in the object."""
    centres = (torch.arange(config.occupancy_resolution) + 0.5) / config.occupancy_resolution * 2.0 - 1.0
    x, y, z = torch.meshgrid(centres, centres, centres, indexing="ij")
    return x.square() + y.square() + z.square() <= OBJECT_RADIUS**2
