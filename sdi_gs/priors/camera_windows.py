"""Cameras on all sides of an object, and which of them are near a given camera.

A camera that is known to within some degrees is any camera of its window: azimuths at most half a width away, and
elevations likewise. The window has hard edges, so that the mixture of its renders is exactly that of a uniformly
distributed error, and near cameras are neighbours in memory: rows are sorted by azimuth, and those of the first window
are repeated after a full turn. Elevations go half a window beyond their range, so that windows at its ends are whole
as well; only at the poles, where elevations end, they are cut off.

Cameras may stand in groups of G at equal turns, which see one object: the row of a group's next camera is N / G rows
further on.

Letters: N cameras, R rows, N and the repeated ones, G cameras of a group.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch, orbit_cameras
from sdi_gs.errors import UserError
from sdi_gs.settings.cameras import CameraConfig
from sdi_gs.settings.priors import IdealPriorConfig
from sdi_gs.toybox.splits import split_seed

_GOLDEN_SHARE = 0.5 * (math.sqrt(5.0) - 1.0)
TOLERANCE_DEG = 1e-3
"""Error of angles that went through float32."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """The rows near a camera."""

    rows: slice
    """Rows of about the right azimuth, of the group's first camera."""
    is_far: Tensor  # [R of the slice] bool, those of the wrong elevation, which do not count


class CameraWindows:
    """N cameras, evenly spread over azimuths and elevations."""

    def __init__(self, config: IdealPriorConfig, group: int = 1) -> None:
        # A stream of its own, not that of the objects.
        (rng,), self.groups = split_seed("prior", config.seed).spawn(1), math.ceil(config.renders_around / group)
        low, high = config.elevations_around
        self._config, self._group, count = config, group, self.groups * group
        first = 360.0 * (np.arange(self.groups) + rng.random(self.groups)) / count
        azimuth = torch.from_numpy(np.concatenate([first + 360.0 * turn / group for turn in range(group)]))
        # Neighbours in azimuth are far apart in elevation: any run of rows covers all elevations evenly.
        turns = (rng.random() + _GOLDEN_SHARE * np.arange(self.groups)) % 1.0
        elevation = torch.from_numpy(low + (high - low) * turns).repeat(group)
        self.cameras: CameraBatch = orbit_cameras(
            azimuth.float(),
            elevation.float(),
            torch.full((count,), config.distance),
            torch.full((count,), config.fov_y_deg),
            width=config.image_size,
            height=config.image_size,
        )
        repeated = torch.nonzero(azimuth < config.azimuth_window_deg).squeeze(1)
        self.order: Tensor = torch.cat([torch.arange(count), repeated])  # [R]
        """The camera of each row."""
        self._azimuth = torch.cat([azimuth, azimuth[repeated] + 360.0])
        self._elevation = elevation[self.order]

    def near(self, azimuth_deg: float, elevation_deg: float) -> Window:
        """Return the rows near a camera; raises UserError for an elevation outside of the configured range."""
        config = self._config
        low, high = config.elevation_deg
        if not low - TOLERANCE_DEG <= elevation_deg <= high + TOLERANCE_DEG:
            raise UserError(
                f"a camera at elevation {elevation_deg:.4g} degrees is beyond toybox-ideal's renders, {low} to {high}: "
                "set ideal_prior.elevation_deg to the range of cameras.elevation_deg"
            )
        begin = (azimuth_deg - 0.5 * config.azimuth_window_deg) % 360.0
        ends = torch.tensor([begin, begin + config.azimuth_window_deg], dtype=self._azimuth.dtype)
        first, last = torch.searchsorted(self._azimuth, ends).tolist()
        away = (self._elevation[first:last] - elevation_deg).abs()
        return Window(rows=slice(first, last), is_far=away > 0.5 * config.elevation_window_deg)

    def rows_of_group(self, window: Window) -> list[slice]:
        """Return the rows of each camera of a group, near whose first camera the window is: row by row one object."""
        first, length = window.rows.start, window.rows.stop - window.rows.start
        begins = [(first + turn * self.groups) % (self.groups * self._group) for turn in range(self._group)]
        return [slice(begin, begin + length) for begin in begins]


def require_known_cameras(config: IdealPriorConfig, cameras: CameraConfig) -> None:
    """Raise UserError unless a run's cameras are among those that toybox-ideal renders."""
    for name, drawn, known in (
        ("distance", cameras.distances, (config.distance, config.distance)),
        ("fov_y_deg", cameras.fov_y_deg, (config.fov_y_deg, config.fov_y_deg)),
        ("elevation_deg", cameras.elevation_deg, config.elevation_deg),
    ):
        if drawn[0] < known[0] or drawn[1] > known[1]:
            raise UserError(
                f"with guidance.views cameras, cameras.{name} must be within toybox-ideal's renders, {known[0]:g} to "
                f"{known[1]:g}, got {drawn[0]:g} to {drawn[1]:g}: change it, or ideal_prior.{name}"
            )
