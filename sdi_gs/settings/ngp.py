"""The hash-grid field (instant-ngp), its rendering and its regularisers.

Schedules are shares of the run; the published ones (``configs/sdi.yaml`` of the SDI code) count 10 000 steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from sdi_gs.settings.bounds import ADAM_BETAS, INTERVAL, RATE, SHARE, WEIGHT, Range, check_settings

NgpBackground = Literal["given", "environment", "random"]
Initialisation = Literal["he", "published"]
ConvexityForm = Literal["camera", "published"]

_LENGTH = Range(1e-3, 1e3)
"""Smaller cubes are lost in the rounding of cameras at a distance."""
_LEVELS = Range(1, 32)
_FINEST_RESOLUTION = 2**16


@dataclass(frozen=True, kw_only=True)
class HashGridConfig:
    """Sizes of the multi-resolution hash grid; the published run has 16 levels to 8 of 2^19 entries (``PUBLISHED``)."""

    num_levels: Annotated[int, _LEVELS] = 8
    """Number of grids, from coarse to fine (16 in the published config)."""
    initial_levels: Annotated[int, _LEVELS] = 5
    """Levels in use at the start (8 in the published config)."""
    bands_start: Annotated[float, SHARE] = 0.2
    """Share of the run after which finer levels join one by one (step 2000 of 10 000)."""
    bands_end: Annotated[float, SHARE] = 0.6
    """Share of the run at which all levels are in use (step 6000 of 10 000)."""
    base_resolution: Annotated[int, Range(16, 512)] = 16
    """Vertices along a side of the coarsest grid."""
    growth: Annotated[float, Range(1.0, 4.0)] = 1.447269237440378
    """Ratio of the resolutions of neighbouring levels."""
    log2_table_size: Annotated[int, Range(8, 24)] = 15
    """Each level has at most two to the power of this many entries of two features (19 in the published config)."""

    def __post_init__(self) -> None:
        check_settings(self)
        if self.initial_levels > self.num_levels:
            raise ValueError(f"initial_levels must be at most num_levels, {self.num_levels}, got {self.initial_levels}")
        if self.bands_start > self.bands_end:
            raise ValueError(f"bands_start must be at most bands_end, got {self.bands_start} and {self.bands_end}")
        if self.base_resolution * self.growth ** (self.num_levels - 1) > _FINEST_RESOLUTION:
            raise ValueError(
                f"the finest of {self.num_levels} levels with growth {self.growth} must have at most "
                f"{_FINEST_RESOLUTION} vertices along a side: lower num_levels, growth or base_resolution"
            )


@dataclass(frozen=True, kw_only=True)
class ShadingConfig:
    """Light of the diffuse material: how often a training view shows albedo, bare shape, or both."""

    albedo_only: Annotated[float, SHARE] = 0.1
    """Share of the run in which every view shows albedo alone (1000 of 10 000 steps)."""
    albedo_probability: Annotated[float, SHARE] = 0.7
    """Probability that a view shows albedo afterwards."""
    textureless_probability: Annotated[float, SHARE] = 0.75
    """Probability that a view which does not show albedo shows a white object."""
    ambient: Annotated[float, WEIGHT] = 0.1
    """Light from everywhere."""
    diffuse: Annotated[float, WEIGHT] = 0.9
    """Light of the lamp at full incidence."""
    lamp_distance: Annotated[tuple[float, float], Range(0.0, 1e3, low_open=True, ordered=True)] = (0.8, 1.5)
    """Range of the lamp's distances from the origin, scene units; its direction is the camera's plus N(0, 1)."""
    enabled: bool = False
    """Whether lit views are shown at all; toybox's pictures bake their light into the colours."""

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True, kw_only=True)
class NgpLossConfig:
    """Weights of the regularisers, beside a distillation term of 0.5 * mean squared distance (published SDI config)."""

    orientation: Annotated[float, WEIGHT] = 0.1
    """Weight of normals that face away from the camera."""
    sparsity: Annotated[float, WEIGHT] = 0.15
    """Weight of mean opacity at the start of the run, falling linearly."""
    sparsity_final: Annotated[float, WEIGHT] = 0.0
    """Weight of mean opacity from ``sparsity_end`` on."""
    sparsity_end: Annotated[float, SHARE] = 0.3
    """Share of the run at which ``sparsity_final`` is reached (step 3000 of 10 000)."""
    opaqueness: Annotated[float, WEIGHT] = 0.1
    """Weight of the pixels' opacity entropy."""
    z_variance: Annotated[float, WEIGHT] = 1.0
    """Weight of the spread of depth within a pixel, square scene units."""
    convexity_form: ConvexityForm = "camera"
    """How dents are measured: by the paper's words, in camera axes (camera), or as its code does, on normals as
    colours, by the third component of their products (published)."""
    convexity: Annotated[float, WEIGHT] = 1.0
    """Weight of dents in the normals at the start of the run, falling linearly."""
    convexity_final: Annotated[float, WEIGHT] = 0.1
    """Weight of dents from ``convexity_end`` on."""
    convexity_end: Annotated[float, SHARE] = 0.4
    """Share of the run at which ``convexity_final`` is reached (step 4000 of 10 000)."""

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def needs_normals(self) -> bool:
        """Whether any term depends on normals."""
        return self.orientation > 0.0 or max(self.convexity, self.convexity_final) > 0.0


@dataclass(frozen=True, kw_only=True)
class NgpConfig:
    """The field, its sampling along rays and its learning rates; the defaults are sized for a CPU."""

    grid: HashGridConfig = field(default_factory=HashGridConfig)
    shading: ShadingConfig = field(default_factory=ShadingConfig)
    losses: NgpLossConfig = field(default_factory=NgpLossConfig)
    radius: Annotated[float, _LENGTH] = 1.0
    """Half the side of the cube that holds the object, scene units (2 in the published config)."""
    hidden_width: Annotated[int, Range(4, 256, multiple_of=4)] = 32
    """Hidden units of the density network and of the albedo network (64 in the published config)."""
    initialisation: Initialisation = "he"
    """Spread of the first weights of all networks: He's, for layers followed by ReLU, or that of the published run,
    torch's own for a layer, which is 2.4 times narrower."""
    blob_scale: Annotated[float, Range(-1e6, 1e6)] = 10.0
    """Value at the origin of the bump added to the density before its softplus (Magic3D)."""
    blob_radius: Annotated[float, _LENGTH] = 0.5
    """Distance from the origin at which the bump is 0, scene units."""
    samples_per_ray: Annotated[int, Range(16, 4096)] = 128
    """Samples along the diagonal of the cube (512 in the published config)."""
    occupancy_resolution: Annotated[int, Range(16, 256)] = 32
    """Cells along a side of the occupancy grid (nerfacc's 32 in the published config)."""
    occupancy_every: Annotated[int, INTERVAL] = 16
    """Steps between updates of the occupancy grid."""
    occupancy_decay: Annotated[float | None, Range(0.0, 1.0, high_open=True)] = None
    """Factor on a cell's stored opacity at each update of the occupancy grid (0.95 in the published config, which has
    10 000 steps); None for one by which a cell that is no longer dense is empty after at most a tenth of the run."""
    empty_alpha: Annotated[float, Range(0.0, 0.1, high_open=True)] = 1e-4
    """Cells and samples with less opacity per step are skipped (0.01 in the published config)."""
    background: NgpBackground = "given"
    """Background of training views: the caller's colour, a learned environment, or a random colour."""
    environment_degree: Annotated[int, Range(0, 3)] = 3
    """Highest degree of the environment's spherical harmonics (2 in the published config, which counts from 1: 9
    bases)."""
    geometry_lr: Annotated[float, RATE] = 0.01
    """Adam step of the grid and of both networks, at the start."""
    geometry_lr_final: Annotated[float | None, RATE] = None
    """Adam step of the grid and of both networks at the end, exponential in between; None for no change."""
    background_lr: Annotated[float, RATE] = 0.001
    """Adam step of the environment's network."""
    adam_betas: Annotated[tuple[float, float], ADAM_BETAS] = (0.9, 0.99)
    """Adam's averaging constants."""

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def step_length(self) -> float:
        """Distance between samples of a ray, scene units."""
        return 2.0 * math.sqrt(3.0) * self.radius / self.samples_per_ray


PUBLISHED = NgpConfig(
    grid=HashGridConfig(num_levels=16, initial_levels=8, log2_table_size=19),
    shading=ShadingConfig(enabled=True),
    losses=NgpLossConfig(convexity_form="published"),
    radius=2.0,
    hidden_width=64,
    initialisation="published",
    samples_per_ray=512,
    occupancy_decay=0.95,
    empty_alpha=0.01,
    background="environment",
    environment_degree=2,
)
"""The field of the published SDI config, for a GPU."""

PUBLISHED_MVDREAM = replace(
    PUBLISHED,
    grid=replace(PUBLISHED.grid, initial_levels=PUBLISHED.grid.num_levels),
    shading=ShadingConfig(),
    losses=NgpLossConfig(
        orientation=0.0, sparsity=0.0, opaqueness=0.0, z_variance=0.0, convexity=0.0, convexity_final=0.0
    ),
    radius=1.0,
)
"""The field of MVDream's published config: all levels from the start, no light and no regularisers."""
