"""Settings of the priors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from sdi_gs.settings.bounds import SEED, Range, check_settings


@dataclass(frozen=True, kw_only=True)
class IdealPriorConfig:
    """The set of renders in the closed-form toybox prior, and the width of the mixture around them."""

    image_size: Annotated[int, Range(4, 1024)] = 64
    """Side of the renders in pixels."""
    pool: Annotated[int, Range(1, 64)] = 2
    """Pixels averaged into one latent pixel along each axis."""
    renders_per_view: Annotated[int, Range(1, 1_000_000)] = 256
    """Mixture centres for one object under one view word."""
    unconditional_renders: Annotated[int, Range(1, 1_000_000)] = 1500
    """Mixture centres of the unconditional prompt: every class, colour and side."""
    component_std: Annotated[float, Range(0.0, 100.0, low_open=True)] = 0.3
    """Width s of the mixture in latent units, where white is 1 and black is -1."""
    elevation_deg: Annotated[tuple[float, float], Range(-90.0, 90.0, ordered=True)] = (-10.0, 40.0)
    """Range of camera elevations of all views but the overhead one."""
    distance: Annotated[float, Range(0.1, 1000.0)] = 3.3
    """Camera distance in scene units."""
    fov_y_deg: Annotated[float, Range(1.0, 150.0)] = 40.0
    """Vertical field of view."""
    seed: Annotated[int, SEED] = 0
    """Seed of the set's random objects and cameras, within the split that belongs to the prior."""

    def __post_init__(self) -> None:
        check_settings(self)
        if self.image_size % self.pool:
            raise ValueError(f"image_size must be a multiple of pool, {self.pool}, got {self.image_size}")
