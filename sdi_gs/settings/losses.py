"""Weights of the loss's terms; free of torch for the command line's sake."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the terms of the loss; the distillation term is 0.5 * mean squared distance to the target."""

    distillation: float = 1.0
    """Weight of the distance between latents and their target."""
    fog: float = 0.1
    """Weight of mean a(1 - a), which makes every pixel either empty or opaque."""
    fog_start: float = 0.0
    """Share of the run after which the fog term counts, ramping up linearly to the end."""
    compactness: float = 0.0
    """Weight of the opacity-weighted mean squared distance from the origin, against growth."""
    needles: float = 0.01
    """Weight of the penalty on Gaussians longer than ``max_anisotropy``."""
    max_anisotropy: float = 8.0
    """Ratio of the longest to the middle axis above which a Gaussian counts as a needle."""

    def __post_init__(self) -> None:
        for name in ("distillation", "fog", "compactness", "needles"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a weight of at least 0, got {getattr(self, name)}")
        if not 0.0 <= self.fog_start <= 1.0:
            raise ValueError(f"fog_start must be 0 to 1, got {self.fog_start}")
        if not self.max_anisotropy >= 1.0:
            raise ValueError(f"max_anisotropy must be at least 1, got {self.max_anisotropy}")
