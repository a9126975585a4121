"""From where a scene is seen: the one answer for films, pages and scores.

A run is seen as its training cameras see it. So is a file whose splats fill their sight, such as a run's own export;
any other file is seen from as far as its splats need, whatever its size and place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from sdi_gs.cameras import CameraBatch, orbit_cameras
from sdi_gs.settings.cameras import CameraConfig, LookConfig
from sdi_gs.splats.sight import fitted_standpoint
from sdi_gs.splats.splat_cloud import SplatCloud

HEIGHTS_DEG = (-30.0, 75.0)
"""Elevations between which people look at an object, also from below and from above."""
GOLDEN_ANGLE_DEG = 180.0 * (3.0 - math.sqrt(5.0))


@dataclass(frozen=True, kw_only=True)
class Framing:
    """A sphere of cameras that look at its middle."""

    middle: tuple[float, float, float]
    """Scene units."""
    distance: float
    """Radius of the sphere, scene units."""
    fov_y_deg: float
    """Vertical field of view."""

    @property
    def sight(self) -> float:
        """Radius of the ball around the middle that just fits into a picture, scene units."""
        return self.distance * math.sin(math.radians(0.5 * self.fov_y_deg))

    def ring(self, count: int, size: int, *, elevation_deg: float) -> CameraBatch:
        """Return evenly spaced cameras at one height, the first in front; size in pixels."""
        cameras = orbit_cameras(
            torch.arange(count) * (360.0 / count),
            torch.full((count,), float(elevation_deg)),
            torch.full((count,), self.distance),
            torch.full((count,), self.fov_y_deg),
            width=size,
            height=size,
        )
        return cameras.moved(self.middle)

    def all_around(self, count: int, size: int) -> CameraBatch:
        """Return cameras spread evenly between two heights, along a spiral of golden angles; size in pixels."""
        low, high = (math.sin(math.radians(angle)) for angle in HEIGHTS_DEG)
        rows = torch.arange(count, dtype=torch.float64)
        heights = low + (high - low) * (rows + 0.5) / count
        cameras = orbit_cameras(
            (rows * GOLDEN_ANGLE_DEG % 360.0).float(),
            torch.rad2deg(torch.asin(heights)).float(),
            torch.full((count,), self.distance),
            torch.full((count,), self.fov_y_deg),
            width=size,
            height=size,
        )
        return cameras.moved(self.middle)


def training_framing(config: CameraConfig) -> Framing:
    """Return the training cameras' mean distance and field of view, around the origin."""
    distance, fov_y_deg = config.middle
    return Framing(middle=(0.0, 0.0, 0.0), distance=distance, fov_y_deg=fov_y_deg)


def framing_of_cloud(cloud: SplatCloud, usual: Framing) -> Framing:
    """Return ``usual`` if it shows the bulk of a cloud well, else a sphere far enough away to see all of the bulk."""
    found = fitted_standpoint(cloud, middle=usual.middle, distance=usual.distance, fov_y_deg=usual.fov_y_deg)
    if found is None:
        return usual
    middle, distance = found
    return replace(usual, middle=middle, distance=distance)


def looked_at(framing: Framing, look: LookConfig) -> Framing:
    """Return a framing with what the user gave in place of its own."""
    given = {"middle": look.look_at, "distance": look.distance, "fov_y_deg": look.fov_y_deg}
    return replace(framing, **{name: value for name, value in given.items() if value is not None})


def in_sight_of(cloud: SplatCloud, framing: Framing, usual: Framing) -> SplatCloud:
    """Return a cloud moved and scaled so that ``usual`` shows what ``framing`` shows of it."""
    factor = usual.distance / framing.distance
    means = (cloud.means.double() - torch.tensor(framing.middle).double()) * factor
    moved = means + torch.tensor(usual.middle).double()
    return replace(cloud, means=moved.to(cloud.means.dtype), log_scales=cloud.log_scales + math.log(factor))
