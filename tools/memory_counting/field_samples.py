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
from sdi_gs.representations.ngp.marching import candidates_per_ray, march
from sdi_gs.representations.ngp.ngp import Ngp
from sdi_gs.settings.compute import fewest
from sdi_gs.settings.ngp import NgpConfig
from sdi_gs.settings.run import RunConfig

BATCHES = 32
"""Number of camera batches that are traced."""
SIDE = 32
"""Side of their pictures in pixels; shares hardly depend on it."""


@dataclass(frozen=True, kw_only=True)
class SamplesPerRay:
    """Mean numbers of samples over some rays."""

    tested: float
    """Samples whose density is evaluated."""
    drawn: float
    """Samples with colour and gradients."""


def samples_of_rays(config: RunConfig, *, image_size: int) -> tuple[SamplesPerRay, SamplesPerRay]:
    """Return the samples per ray of an initial field with all levels: the mean, and the largest of any group of rays
    that a step traces at once.
    """
    counts = torch.stack(_counts(config), dim=-1).double()
    compute, pixels = config.compute, image_size**2
    all_rays = config.views_per_step * pixels
    at_once = fewest(compute.views_at_once * pixels, compute.rays_at_once) or all_rays
    groups = max(round(all_rays / at_once), 1)
    means = torch.stack([group.mean(dim=1) for group in counts.tensor_split(groups, dim=1)])  # [G, N, 2]
    mean, most = means.mean(dim=(0, 1)).tolist(), means.amax(dim=(0, 1)).tolist()
    return SamplesPerRay(tested=mean[0], drawn=mean[1]), SamplesPerRay(tested=most[0], drawn=most[1])


def shares_met(config: NgpConfig, samples: SamplesPerRay) -> Assumptions:
    """Return the assumptions of a meter for these samples per ray."""
    return Assumptions(
        nonzero_share=samples.tested / candidates_per_ray(config.radius, config.step_length),
        mask_share=samples.drawn / max(samples.tested, 1e-9),
    )


@torch.no_grad()
def _counts(config: RunConfig) -> tuple[Tensor, Tensor]:  # [N, R], [N, R]
    """Return tested and drawn samples of every ray of some steps' views, view by view and row by row."""
    generator = torch.Generator().manual_seed(config.seed)
    ngp = Ngp(config.ngp, generator=generator, device=torch.device("cpu"))
    # No cell of a new grid is empty: the most that a step can march through.
    ngp.field.num_levels = config.ngp.grid.num_levels
    tested, drawn = [], []
    for _ in range(BATCHES):
        cameras = sample_cameras(config.cameras, config.views_per_step, width=SIDE, height=SIDE, generator=generator)
        rays = camera_rays(cameras)
        samples = march(
            rays,
            ngp.occupancy.occupied(),
            config.ngp.radius,
            step=config.ngp.step_length,
            offsets=torch.rand(len(rays), generator=generator),
        )
        seen = visible(ngp.density_of(samples.points), samples, config.ngp.empty_alpha)
        tested.append(samples.ray_starts.diff())
        drawn.append(samples.keep(seen).ray_starts.diff())
    return torch.stack(tested), torch.stack(drawn)
