"""Where training cameras stand; free of torch for the command line's sake."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class CameraConfig:
    """Where training cameras stand; they look at the origin."""

    elevation_deg: tuple[float, float] = (-10.0, 45.0)
    """Range of elevations, uniform in angle (published SDI config)."""
    distance: tuple[float, float] = (3.3, 3.3)
    """Range of distances from the origin, scene units."""
    fov_y_deg: tuple[float, float] = (40.0, 40.0)
    """Range of vertical fields of view."""
    antithetic: bool = False
    """Draw azimuths in pairs that face each other, 180 degrees apart (MV-SDI); needs an even number of views."""

    def __post_init__(self) -> None:
        for name, (low, high), (least, most) in (
            ("elevation_deg", self.elevation_deg, (-90.0, 90.0)),
            ("distance", self.distance, (0.1, 1000.0)),
            ("fov_y_deg", self.fov_y_deg, (1.0, 150.0)),
        ):
            if not least <= low <= high <= most:
                raise ValueError(f"{name} must be an ordered pair within {least} to {most}, got {low} {high}")
