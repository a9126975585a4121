"""The initial cloud, its learning rates and its growth; free of torch for the command line's sake."""

from __future__ import annotations

import math
from dataclasses import dataclass

LEARNING_RATES = ("means_lr", "means_lr_final", "scales_lr", "quats_lr", "opacities_lr", "sh0_lr")


@dataclass(frozen=True, kw_only=True)
class GaussiansConfig:
    """The initial cloud and how fast each of its parameters learns."""

    num_initial: int = 6000
    """Gaussians at the start (text-to-3D systems use 4 096 to 100 000)."""
    initial_radius: float = 0.8
    """Radius of the ball they fill uniformly, scene units (0.5 to 0.8 in text-to-3D systems)."""
    initial_opacity: float = 0.1
    """Opacity of each at the start (0.1 in DreamGaussian and LucidDreamer)."""
    initial_colour_spread: float = 0.05
    """Standard deviation of the initial colours around grey, in RGB units."""
    means_lr: float = 4e-3
    """Adam step of the centres at the start, scene units."""
    means_lr_final: float = 4e-4
    """Adam step of the centres at the end; exponential in between."""
    scales_lr: float = 1e-2
    """Adam step of the log scales."""
    quats_lr: float = 5e-3
    """Adam step of the quaternions."""
    opacities_lr: float = 5e-2
    """Adam step of the logit opacities (0.05 in DreamGaussian and LucidDreamer)."""
    sh0_lr: float = 3e-2
    """Adam step of the colour coefficients."""
    adam_betas: tuple[float, float] = (0.9, 0.99)
    """Adam's averaging constants (the published SDI config)."""

    def __post_init__(self) -> None:
        if self.num_initial < 1:
            raise ValueError(f"num_initial must be at least 1, got {self.num_initial}")
        if not 0.0 < self.initial_opacity < 1.0:
            raise ValueError(f"initial_opacity must lie in (0, 1), got {self.initial_opacity}")
        if self.initial_radius <= 0.0:
            raise ValueError(f"initial_radius must be positive, got {self.initial_radius}")
        for name in LEARNING_RATES:
            if not 0.0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class DensifyConfig:
    """When Gaussians are added and removed; counts of steps are shares of the run."""

    enabled: bool = True
    """Whether to refine at all."""
    max_gaussians: int = 20_000
    """Hard cap on the count."""
    min_gaussians: int = 500
    """No pruning that would leave fewer than this."""
    start: float = 0.1
    """First refinement, as a share of the run."""
    stop: float = 0.7
    """Last refinement, as a share of the run."""
    every: int = 50
    """Steps between refinements."""
    grow_grad2d: float = 2e-4
    """Mean screen-space gradient above which a Gaussian is cloned or split (gsplat)."""
    grow_scale3d: float = 0.02
    """Size in scene units above which it is split rather than cloned."""
    prune_opacity: float = 0.02
    """Opacity below which a Gaussian is removed."""
    prune_scale3d: float = 0.3
    """Size in scene units above which it is removed."""
    reset_opacity_at: float | None = None
    """Share of the run at which all opacities are lowered once; None for never."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.start <= self.stop <= 1.0:
            raise ValueError(f"need 0 <= start <= stop <= 1, got {self.start} and {self.stop}")
        if self.every < 1:
            raise ValueError(f"every must be at least 1, got {self.every}")
        if not 1 <= self.min_gaussians <= self.max_gaussians:
            raise ValueError(
                f"need 1 <= min_gaussians <= max_gaussians, got {self.min_gaussians}, {self.max_gaussians}"
            )
