"""How a mesh is cut out of a density; free of torch for the command line's sake."""

from __future__ import annotations

import math
from dataclasses import dataclass

MIN_RESOLUTION, MAX_RESOLUTION = 16, 512
"""Below, nothing is left of an object; above, the grid alone takes more than 2 GB while it is cut."""


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """How a mesh is cut out of a density."""

    resolution: int = 128
    """Grid points along the longest side of the box around the object, 16 to 512."""
    level: float | None = None
    """Density per scene unit at the surface; None means 3 for Gaussians and 25 for a field (docs/reports/mesh.md)."""
    keep_share: float = 1.0
    """Separate pieces with at least this share of the largest one's volume are kept; 1 for the largest alone."""
    max_faces: int | None = None
    """Triangles to which the mesh is reduced (quadric error); None for as many as the grid gives."""

    def __post_init__(self) -> None:
        if not MIN_RESOLUTION <= self.resolution <= MAX_RESOLUTION:
            raise ValueError(f"resolution must be {MIN_RESOLUTION} to {MAX_RESOLUTION}, got {self.resolution}")
        if self.level is not None and not 0.0 < self.level < math.inf:
            raise ValueError(f"level must be positive, got {self.level}")
        if not 0.0 <= self.keep_share <= 1.0:
            raise ValueError(f"keep_share must be 0 to 1, got {self.keep_share}")
        if self.max_faces is not None and self.max_faces < 100:
            raise ValueError(f"max_faces must be at least 100, got {self.max_faces}")
