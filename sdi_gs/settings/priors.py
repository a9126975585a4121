"""Settings of the priors; free of torch for the command line's sake."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class IdealPriorConfig:
    """The rendered set and the width of the mixture around it."""

    image_size: int = 64
    """Side of the renders in pixels."""
    pool: int = 2
    """Pixels averaged into one latent pixel along each axis."""
    renders_per_view: int = 256
    """Mixture centres for one object under one view word."""
    unconditional_renders: int = 1500
    """Mixture centres of the unconditional prompt: every class, colour and side."""
    component_std: float = 0.3
    """Width s of the mixture in latent units, where white is 1 and black is -1."""
    elevation_deg: tuple[float, float] = (-10.0, 40.0)
    """Range of camera elevations of all views but the overhead one."""
    distance: float = 3.3
    """Camera distance in scene units."""
    fov_y_deg: float = 40.0
    """Vertical field of view."""
    seed: int = 0
    """Which draws of the prior's split the set consists of."""

    def __post_init__(self) -> None:
        if self.image_size % self.pool:
            raise ValueError(f"image_size {self.image_size} must be a multiple of pool {self.pool}")
        if self.component_std <= 0.0:
            raise ValueError(f"component_std must be positive, got {self.component_std}")
        if min(self.renders_per_view, self.unconditional_renders) < 1:
            raise ValueError("a mixture needs at least one render")
