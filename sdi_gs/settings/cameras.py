"""Where training cameras stand."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

from sdi_gs.settings.bounds import SHARE, Range, check_settings

ElevationLaw = Literal["angle", "threestudio"]

_JITTER = Range(0.0, 1e3)


@dataclass(frozen=True, kw_only=True)
class JitterConfig:
    """Random changes of a camera's pose, by which no place in the world is special (threestudio)."""

    position: Annotated[float, _JITTER] = 0.0
    """Largest shift of the camera along each axis, drawn evenly, scene units (threestudio's camera_perturb, 0.1)."""
    look_at: Annotated[float, _JITTER] = 0.0
    """Standard deviation of the point that it looks at, from the origin along each axis, scene units (threestudio's
    center_perturb, 0.2)."""
    up: Annotated[float, _JITTER] = 0.0
    """Standard deviation of the upward direction along each axis, before it is normalised (threestudio's up_perturb,
    0.02)."""

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True, kw_only=True)
class CameraConfig:
    """Where training cameras stand; they look at the origin, or near it with ``jitter``."""

    elevation_deg: Annotated[tuple[float, float], Range(-90.0, 90.0, ordered=True)] = (-10.0, 45.0)
    """Range of elevations (published SDI config)."""
    elevation_law: ElevationLaw = "angle"
    """How elevations are drawn: evenly by angle, or as threestudio does, in every other step on average from a law that
    keeps to the middle heights (-6.4 to 30 degrees of -10 to 45)."""
    distance: Annotated[tuple[float, float], Range(0.1, 1000.0, ordered=True)] = (3.3, 3.3)
    """Range of distances from the origin, scene units."""
    relative_distance: bool = False
    """Whether ``distance`` counts in units of 1 / tan(fov / 2), from where a view shows 1 scene unit above and below
    the origin, so that an object fills as much of every view (relative_radius of threestudio's MVDream)."""
    fov_y_deg: Annotated[tuple[float, float], Range(1.0, 150.0, ordered=True)] = (40.0, 40.0)
    """Range of vertical fields of view."""
    jitter: JitterConfig = field(default_factory=JitterConfig)
    views_per_group: Annotated[int, Range(1, 64)] = 1
    """Views of a step that stand around the object at equal turns, at one elevation, distance and field of view; 4 for
    a prior that denoises four orthogonal views together (MVDream). ``views_per_step`` is a multiple of it."""
    antithetic: bool = False
    """Draw azimuths in pairs that face each other, 180 degrees apart (MV-SDI); needs an even number of views."""

    word_spread: Annotated[float, SHARE] = 1.0
    """Distance of azimuths from the middle of their view word's quarter at the run's start, as a share of 45 degrees;
    grows evenly to 1, all around. A word leaves its quarter open, and its middle is what a prior takes it for."""
    word_spread_until: Annotated[float, SHARE] = 0.0
    """Share of the run after which azimuths are drawn all around."""

    def __post_init__(self) -> None:
        check_settings(self)
        if self.antithetic and self.views_per_group > 1:
            raise ValueError(
                f"antithetic draws pairs and views_per_group {self.views_per_group} draws groups: leave one of them out"
            )

    @property
    def middle(self) -> tuple[float, float]:
        """Distance in scene units, and field of view in degrees, in the middle of their ranges."""
        fov = 0.5 * sum(self.fov_y_deg)
        return 0.5 * sum(self.distance) * self._unit(fov), fov

    @property
    def distances(self) -> tuple[float, float]:
        """Range of distances in scene units, over all fields of view."""
        nearest, farthest = self.distance
        narrow, wide = self.fov_y_deg
        return nearest * self._unit(wide), farthest * self._unit(narrow)

    def _unit(self, fov_y_deg: float) -> float:
        return 1.0 / math.tan(math.radians(0.5 * fov_y_deg)) if self.relative_distance else 1.0


_PLACE = Range(-1e9, 1e9)


@dataclass(frozen=True, kw_only=True)
class LookConfig:
    """Where the cameras that show a scene stand; what is not given follows from the scene."""

    look_at: Annotated[tuple[float, float, float] | None, _PLACE] = None
    """Point that the cameras look at, scene units, z up; None: the origin, for a file elsewhere its middle."""
    distance: Annotated[float | None, Range(1e-6, 1e9)] = None
    """Distance from that point, scene units; None: the training cameras', for a file elsewhere as far as needed."""
    fov_y_deg: Annotated[float | None, Range(1.0, 150.0)] = None
    """Vertical field of view; None: the training cameras'."""

    def __post_init__(self) -> None:
        check_settings(self)
