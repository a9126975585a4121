"""The hash-grid field, its rendering and its regularisers; free of torch for the command line's sake.

Shares of the run in place of steps: the published schedules (``configs/sdi.yaml`` of the SDI code) count 10 000 steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

NgpBackground = Literal["given", "environment", "random"]

MAX_TABLE_LOG2 = 24


@dataclass(frozen=True, kw_only=True)
class HashGridConfig:
    """Sizes of the multi-resolution hash grid; the published run has 16 levels to 8 of 2^19 entries (``PUBLISHED``)."""

    num_levels: int = 8
    """Grids from coarse to fine (16 in the published config)."""
    initial_levels: int = 5
    """Levels in use at the start (8 in the published config)."""
    bands_start: float = 0.2
    """Share of the run after which finer levels join one by one (step 2000 of 10 000)."""
    bands_end: float = 0.6
    """Share of the run at which all levels are in use (step 6000 of 10 000)."""
    base_resolution: int = 16
    """Vertices along a side of the coarsest grid."""
    growth: float = 1.447269237440378
    """Ratio of the resolutions of neighbouring levels."""
    log2_table_size: int = 15
    """Each level has at most two to this many entries of two features (19 in the published config)."""

    def __post_init__(self) -> None:
        if not 1 <= self.num_levels <= 32:
            raise ValueError(f"num_levels must be 1 to 32, got {self.num_levels}")
        if not 1 <= self.initial_levels <= self.num_levels:
            raise ValueError(f"initial_levels must be 1 to num_levels, {self.num_levels}, got {self.initial_levels}")
        if not 0.0 <= self.bands_start <= self.bands_end <= 1.0:
            raise ValueError(f"need 0 <= bands_start <= bands_end <= 1, got {self.bands_start} and {self.bands_end}")
        if not 16 <= self.base_resolution <= 512:
            raise ValueError(f"base_resolution must be 16 to 512, got {self.base_resolution}")
        if not 1.0 <= self.growth <= 4.0:
            raise ValueError(f"growth must be 1 to 4, got {self.growth}")
        if not 8 <= self.log2_table_size <= MAX_TABLE_LOG2:
            raise ValueError(f"log2_table_size must be 8 to {MAX_TABLE_LOG2}, got {self.log2_table_size}")
        if self.base_resolution * self.growth ** (self.num_levels - 1) > 2**16:
            raise ValueError(
                f"the finest of {self.num_levels} levels with growth {self.growth} is beyond 65536 vertices"
            )


@dataclass(frozen=True, kw_only=True)
class ShadingConfig:
    """Light of the diffuse material: how often a training view shows albedo, bare shape, or both."""

    albedo_only: float = 0.1
    """Share of the run in which every view shows albedo alone (1000 of 10 000 steps)."""
    albedo_probability: float = 0.7
    """Probability that a view shows albedo afterwards."""
    textureless_probability: float = 0.75
    """Probability that one which does not shows a white object."""
    ambient: float = 0.1
    """Light from everywhere."""
    diffuse: float = 0.9
    """Light of the lamp at full incidence."""
    lamp_distance: tuple[float, float] = (0.8, 1.5)
    """Range of the lamp's distances from the origin, scene units; its direction is the camera's plus N(0, 1)."""
    enabled: bool = False
    """Whether lit views are shown at all; toybox's pictures bake their light into the colours."""

    def __post_init__(self) -> None:
        for name in ("albedo_only", "albedo_probability", "textureless_probability"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be 0 to 1, got {getattr(self, name)}")
        for name in ("ambient", "diffuse"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if not 0.0 < self.lamp_distance[0] <= self.lamp_distance[1] < math.inf:
            raise ValueError(f"lamp_distance must be an ordered pair above 0, got {self.lamp_distance}")


@dataclass(frozen=True, kw_only=True)
class NgpLossConfig:
    """Weights of the regularisers, beside a distillation term of 0.5 * mean squared distance (published SDI config)."""

    orientation: float = 0.1
    """Weight of normals that face away from the camera."""
    sparsity: float = 0.15
    """Weight of mean opacity at the start of the run, falling linearly."""
    sparsity_final: float = 0.0
    """Weight of mean opacity from ``sparsity_end`` on."""
    sparsity_end: float = 0.3
    """Share of the run at which it arrives there (step 3000 of 10 000)."""
    opaqueness: float = 0.1
    """Weight of the pixels' opacity entropy."""
    z_variance: float = 1.0
    """Weight of the spread of depth within a pixel, square scene units."""
    convexity: float = 1.0
    """Weight of dents in the normals at the start of the run, falling linearly."""
    convexity_final: float = 0.1
    """Weight of dents from ``convexity_end`` on."""
    convexity_end: float = 0.4
    """Share of the run at which it arrives there (step 4000 of 10 000)."""

    def __post_init__(self) -> None:
        for name in ("orientation", "sparsity", "sparsity_final", "opaqueness", "z_variance", "convexity"):
            _require_weight(name, getattr(self, name))
        _require_weight("convexity_final", self.convexity_final)
        for name in ("sparsity_end", "convexity_end"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be 0 to 1, got {getattr(self, name)}")

    @property
    def needs_normals(self) -> bool:
        """Whether some term looks at normals."""
        return self.orientation > 0.0 or max(self.convexity, self.convexity_final) > 0.0


def _require_weight(name: str, value: float) -> None:
    if not 0.0 <= value < math.inf:
        raise ValueError(f"{name} must be a weight of at least 0, got {value}")


@dataclass(frozen=True, kw_only=True)
class NgpConfig:
    """The field, how it is marched through and how fast it learns; the defaults are sized for a CPU."""

    grid: HashGridConfig = field(default_factory=HashGridConfig)
    shading: ShadingConfig = field(default_factory=ShadingConfig)
    losses: NgpLossConfig = field(default_factory=NgpLossConfig)
    radius: float = 1.0
    """Half the side of the cube that holds the object, scene units (2 in the published config)."""
    hidden_width: int = 32
    """Hidden units of the density network and of the albedo network (64 in the published config)."""
    blob_scale: float = 10.0
    """Value at the origin of the bump added to the density before its softplus (Magic3D)."""
    blob_radius: float = 0.5
    """Distance from the origin at which the bump is 0, scene units."""
    samples_per_ray: int = 128
    """Samples along the diagonal of the cube (512 in the published config)."""
    occupancy_resolution: int = 32
    """Cells along a side of the grid that tells where to sample (nerfacc's 32 in the published config)."""
    occupancy_every: int = 16
    """Steps between updates of that grid."""
    occupancy_decay: float = 0.95
    """What is left of a cell's remembered density after an update."""
    empty_alpha: float = 1e-4
    """Cells and samples with less opacity per step are skipped (0.01 in the published config)."""
    background: NgpBackground = "given"
    """What is behind training views: the caller's colour, a learned environment, or a random colour."""
    geometry_lr: float = 0.01
    """Adam step of the grid and of both networks."""
    background_lr: float = 0.001
    """Adam step of the environment's network."""
    adam_betas: tuple[float, float] = (0.9, 0.99)
    """Adam's averaging constants."""

    def __post_init__(self) -> None:
        for name in ("radius", "blob_radius", "geometry_lr", "background_lr"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not math.isfinite(self.blob_scale):
            raise ValueError(f"blob_scale must be finite, got {self.blob_scale}")
        if self.hidden_width not in range(4, 257, 4):
            raise ValueError(f"hidden_width must be a multiple of 4 up to 256, got {self.hidden_width}")
        if not 16 <= self.samples_per_ray <= 4096:
            raise ValueError(f"samples_per_ray must be 16 to 4096, got {self.samples_per_ray}")
        if not 16 <= self.occupancy_resolution <= 256:
            raise ValueError(f"occupancy_resolution must be 16 to 256, got {self.occupancy_resolution}")
        if self.occupancy_every < 1:
            raise ValueError(f"occupancy_every must be at least 1, got {self.occupancy_every}")
        if not 0.0 <= self.occupancy_decay < 1.0:
            raise ValueError(f"occupancy_decay must be 0 up to 1, got {self.occupancy_decay}")
        if not 0.0 <= self.empty_alpha < 0.1:
            raise ValueError(f"empty_alpha must be 0 to 0.1, got {self.empty_alpha}")

    @property
    def step_length(self) -> float:
        """Distance between samples of a ray, scene units."""
        return 2.0 * math.sqrt(3.0) * self.radius / self.samples_per_ray


PUBLISHED = NgpConfig(
    grid=HashGridConfig(num_levels=16, initial_levels=8, log2_table_size=19),
    shading=ShadingConfig(enabled=True),
    radius=2.0,
    hidden_width=64,
    samples_per_ray=512,
    background="environment",
)
"""The field of the published SDI config, for a GPU."""
