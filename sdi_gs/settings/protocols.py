"""From where results are scored: named protocols of the field, and the options that change single settings of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from sdi_gs.errors import UserError
from sdi_gs.settings.bounds import Range, check_settings

ProtocolName = Literal["orbit", "sdi", "mv-sdi", "t3bench-quality", "dreamfusion", "toybox"]
Placement = Literal["ring", "icosphere", "held-out"]
BackgroundName = Literal["white", "black", "grey"]

BACKGROUNDS: Mapping[BackgroundName, tuple[float, float, float]] = {
    "white": (1.0, 1.0, 1.0),
    "black": (0.0, 0.0, 0.0),
    "grey": (0.5, 0.5, 0.5),
}


@dataclass(frozen=True, kw_only=True)
class ViewProtocol:
    """Cameras, size and background of the pictures that the metrics without a truth see."""

    name: ProtocolName
    """Value of ``--protocol``."""
    placement: Placement = "ring"
    """A ring at one elevation, the vertices of an icosphere, or toybox's held-out cameras."""
    azimuths_deg: tuple[float, ...] = ()
    """Of a ring, degrees; 0 is in front of the object."""
    elevation_deg: float = 15.0
    """Of a ring, degrees."""
    distance: float | None = None
    """Of a ring from the origin, scene units; of an icosphere from the object's middle, in half its longest side; None:
    fitted to the bounding sphere."""
    fov_y_deg: tuple[float, ...] = (40.0,)
    """Vertical fields of view; every place is seen through each of them."""
    size: int = 512
    """Side of the pictures in pixels."""
    background: BackgroundName = "white"
    """What is seen where nothing is."""

    def as_json(self) -> dict[str, object]:
        """Return plain values for the manifest."""
        return {
            "name": self.name,
            "placement": self.placement,
            "azimuths_deg": [round(azimuth, 6) for azimuth in self.azimuths_deg],
            "elevation_deg": self.elevation_deg if self.placement == "ring" else None,
            "distance": "fitted" if self.distance is None else self.distance,
            "fov_y_deg": list(self.fov_y_deg),
            "size": self.size,
            "background": self.background,
        }


@dataclass(frozen=True, kw_only=True)
class ViewOptions:
    """Single settings in place of the protocol's own; None keeps it."""

    count: Annotated[int | None, Range(1, 1000)] = None
    """Number of azimuths of the ring, evenly spaced from the front on."""
    elevation_deg: Annotated[float | None, Range(-90.0, 90.0)] = None
    """Elevation of the ring, degrees."""
    distance: Annotated[float | None, Range(1e-6, 1e9)] = None
    """Distance of the ring from the origin, scene units."""
    fov_y_deg: Annotated[float | None, Range(1.0, 150.0)] = None
    """Vertical field of view, degrees."""
    size: Annotated[int | None, Range(16, 4096)] = None
    """Side of the pictures in pixels."""
    background: BackgroundName | None = None
    """What is seen where nothing is."""

    def __post_init__(self) -> None:
        check_settings(self)


def ring_azimuths(count: int) -> tuple[float, ...]:
    """Return evenly spaced azimuths from the front on, degrees."""
    return tuple(360.0 * index / count for index in range(count))


def _both_ends(count: int) -> tuple[float, ...]:
    """Return azimuths as threestudio's test split has them: the last is the first again."""
    return tuple(360.0 * index / (count - 1) for index in range(count))


def _every_other(chosen: int, count: int) -> tuple[float, ...]:
    """Return MV-SDI's choice among threestudio's test views: numpy's even steps, cut to whole indices."""
    every, step = _both_ends(count), (count - 1) / (chosen - 1)
    return tuple(every[int(index * step)] for index in range(chosen - 1)) + (every[-1],)


ORBIT = ViewProtocol(name="orbit", azimuths_deg=ring_azimuths(50))

PROTOCOLS: tuple[ViewProtocol, ...] = (
    ORBIT,
    # threestudio's test cameras (data/uncond.py) under configs/sdi.yaml, as many as the paper's views.
    ViewProtocol(name="sdi", azimuths_deg=_both_ends(50), distance=2.0, fov_y_deg=(70.0,)),
    # scripts/evaluate.py of MV-SDI takes 50 of threestudio's 120 test views.
    ViewProtocol(name="mv-sdi", azimuths_deg=_every_other(50, 120), distance=2.0, fov_y_deg=(70.0,)),
    # render/meshrender.py of T3Bench.
    ViewProtocol(
        name="t3bench-quality",
        placement="icosphere",
        distance=2.2,
        fov_y_deg=(60.0, 45.0, 36.0, 30.0, 24.0),
        background="black",
    ),
    # The view that Dream Fields retrieves by: pose_spherical(30, -45, 4), the focal length of NeRF's synthetic scenes.
    ViewProtocol(
        name="dreamfusion", azimuths_deg=(240.0,), elevation_deg=45.0, distance=4.0, fov_y_deg=(39.6,), size=224
    ),
    ViewProtocol(name="toybox", placement="held-out", distance=3.3, size=64),
)
"""Every protocol, the default first."""


def protocol_with(name: ProtocolName, options: ViewOptions) -> ViewProtocol:
    """Return a protocol with single settings changed; UserError for one that its placement does not have."""
    protocol = next(row for row in PROTOCOLS if row.name == name)
    if protocol.placement != "ring":
        for option in ("count", "elevation_deg", "distance", "fov_y_deg"):
            if getattr(options, option) is not None:
                raise UserError(
                    f"--views.{option.replace('_', '-')} changes a ring of cameras, and protocol {name} has none: "
                    "leave it out, or choose another --protocol"
                )
    changes: dict[str, object] = {
        field: value
        for field in ("elevation_deg", "distance", "size", "background")
        if (value := getattr(options, field)) is not None
    }
    if options.count is not None:
        changes["azimuths_deg"] = ring_azimuths(options.count)
    if options.fov_y_deg is not None:
        changes["fov_y_deg"] = (options.fov_y_deg,)
    return replace(protocol, **changes)  # pyright: ignore[reportArgumentType]
