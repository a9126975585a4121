"""The initial camera of the page, and the cameras of its buttons."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import viser

from sdi_gs.cameras import orbit_cameras
from sdi_gs.pictures.framing import Framing
from sdi_gs.viewer.labels import Side

START_ELEVATION_DEG = 15.0
TOP_ELEVATION_DEG = 89.0
"""Slightly below the pole, where the browser's orbit controls are undefined."""
CANVAS_HEIGHT = 720
"""Height of a common browser window, pixels."""
ANGLES_DEG: dict[Side, tuple[float, float]] = {
    "front": (0.0, 0.0),
    "side": (90.0, 0.0),
    "back": (180.0, 0.0),
    "top": (0.0, TOP_ELEVATION_DEG),
}
"""Azimuth and elevation; azimuth 0 is the object's front."""


@dataclass(frozen=True, kw_only=True)
class Standpoint:
    """A sphere around a scene on which the page's cameras are placed, looking at its middle."""

    distance: float
    """Radius of the sphere, scene units."""
    fov_y_deg: float
    middle: tuple[float, float, float] = (0.0, 0.0, 0.0)
    extent: float = 1.0
    """Half the side of the box that holds the scene, scene units."""

    @property
    def pixel(self) -> float:
        """Width of a pixel at the scene's middle on a canvas of ``CANVAS_HEIGHT``, scene units."""
        return 2.0 * self.distance * math.tan(math.radians(0.5 * self.fov_y_deg)) / CANVAS_HEIGHT

    def position(self, azimuth_deg: float, elevation_deg: float) -> tuple[float, float, float]:
        """Return a point on the sphere, scene units."""
        one = [torch.tensor([value]) for value in (azimuth_deg, elevation_deg, self.distance, self.fov_y_deg)]
        camera = orbit_cameras(*one, width=1, height=1)
        x, y, z = (camera.world_from_camera[0, :3, 3] + torch.tensor(self.middle)).tolist()
        return (x, y, z)

    def prepare(self, server: viser.ViserServer) -> None:
        """Place the initial camera of every client in front of the scene."""
        start = server.initial_camera
        start.position = self.position(0.0, START_ELEVATION_DEG)
        start.look_at = self.middle
        start.up = (0.0, 0.0, 1.0)
        start.fov = math.radians(self.fov_y_deg)

    def move(self, client: viser.ClientHandle, side: Side | None) -> None:
        """Move a client's camera to a side; None for the initial camera."""
        azimuth, elevation = (0.0, START_ELEVATION_DEG) if side is None else ANGLES_DEG[side]
        with client.atomic():
            client.camera.up_direction = (0.0, 0.0, 1.0)
            client.camera.position = self.position(azimuth, elevation)
            client.camera.look_at = self.middle
            client.camera.fov = math.radians(self.fov_y_deg)


def standpoint_of(framing: Framing) -> Standpoint:
    """Return the sphere of a framing; the scene's box holds what its cameras see."""
    half = framing.distance * math.tan(math.radians(0.5 * framing.fov_y_deg))
    return Standpoint(distance=framing.distance, fov_y_deg=framing.fov_y_deg, middle=framing.middle, extent=half)
