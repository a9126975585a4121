"""The voxel grid: its size from coarse to fine, its sampling along rays and its regularisers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated

from sdi_gs.settings.bounds import ADAM_BETAS, INTERVAL, RATE, SHARE, WEIGHT, Range, check_settings

_LENGTH = Range(1e-3, 1e3)
SMALLEST_RESOLUTION = 8
"""Vertices along a side of the coarsest grid, at least."""


@dataclass(frozen=True, kw_only=True)
class VoxelLossConfig:
    """Weights of the regularisers, beside a distillation term of 0.5 * mean squared distance."""

    tv_density: Annotated[float, WEIGHT] = 0.01
    """Weight of the total variation of opacity, mean over the grid (Plenoxels' idea, on opacities)."""
    tv_colour: Annotated[float, WEIGHT] = 0.005
    """Weight of the total variation of colour, mean over the grid."""
    sparsity: Annotated[float, WEIGHT] = 0.015
    """Weight of mean opacity at the start of the run, falling linearly to 0."""
    sparsity_end: Annotated[float, SHARE] = 0.3
    """Share of the run at which that is 0."""
    opaqueness: Annotated[float, WEIGHT] = 0.01
    """Weight of the pixels' opacity entropy."""
    z_variance: Annotated[float, WEIGHT] = 0.1
    """Weight of the spread of depth within a pixel, square scene units."""

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True, kw_only=True)
class VoxelsConfig:
    """A dense grid of density and colour within a cube, interpolated linearly; sized for a CPU."""

    losses: VoxelLossConfig = field(default_factory=VoxelLossConfig)
    radius: Annotated[float, _LENGTH] = 1.0
    """Half the side of the cube that holds the object, scene units."""
    resolution: Annotated[int, Range(16, 512)] = 64
    """Vertices along a side at the end (512 in Plenoxels, of which few are stored)."""
    upsample_at: Annotated[tuple[float, ...], SHARE] = (0.2, 0.5)
    """Shares of the run at which the grid doubles its resolution; it starts halved as often."""
    sh_degree: Annotated[int, Range(0, 2)] = 0
    """Highest degree of the colour's spherical harmonics (2 in Plenoxels); 0 for a colour without direction."""
    blob_scale: Annotated[float, Range(-1e6, 1e6)] = 10.0
    """Value at the origin of the bump that the density starts with, before its softplus."""
    blob_radius: Annotated[float, _LENGTH] = 0.5
    """Distance from the origin at which the bump is 0, scene units."""
    samples_per_ray: Annotated[int, Range(16, 4096)] = 128
    """Samples along the diagonal of the cube."""
    occupancy_resolution: Annotated[int, Range(16, 256)] = 32
    """Cells along a side of the occupancy grid."""
    occupancy_every: Annotated[int, INTERVAL] = 16
    """Steps between updates of the occupancy grid."""
    occupancy_decay: Annotated[float | None, Range(0.0, 1.0, high_open=True)] = None
    """Factor on a cell's stored opacity at each update; None for one that empties a cell within a tenth of the run."""
    empty_alpha: Annotated[float, Range(0.0, 0.1, high_open=True)] = 1e-4
    """Cells and samples with less opacity per step are skipped."""
    density_lr: Annotated[float, RATE] = 1.5
    """Adam step of the density before its softplus."""
    colour_lr: Annotated[float, RATE] = 0.05
    """Adam step of the colour before its sigmoid."""
    final_rate: Annotated[float, Range(1e-4, 1.0)] = 0.1
    """Share of both rates that is left at the end, exponential in between."""
    adam_betas: Annotated[tuple[float, float], ADAM_BETAS] = (0.9, 0.99)
    """Adam's averaging constants."""

    def __post_init__(self) -> None:
        check_settings(self)
        if list(self.upsample_at) != sorted(self.upsample_at):
            raise ValueError(f"upsample_at must be in order, got {' '.join(map(str, self.upsample_at))}")
        if self.resolutions[0] < SMALLEST_RESOLUTION:
            raise ValueError(
                f"upsample_at doubles the grid {len(self.upsample_at)} times, so that it starts with"
                f" {self.resolutions[0]} vertices along a side, of at least {SMALLEST_RESOLUTION}: name fewer shares or"
                f" raise resolution, {self.resolution}"
            )

    @property
    def step_length(self) -> float:
        """Distance between samples of a ray, scene units."""
        return 2.0 * math.sqrt(3.0) * self.radius / self.samples_per_ray

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Vertices along a side, from the start to the end."""
        return tuple(self.resolution >> k for k in range(len(self.upsample_at), -1, -1))

    def resolution_at(self, progress: float) -> int:
        """Return the vertices along a side at a share of the run."""
        # Rounding must not delay a doubling that is due.
        return self.resolutions[sum(progress + 1e-6 >= share for share in self.upsample_at)]
