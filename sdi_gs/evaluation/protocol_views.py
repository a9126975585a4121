"""The pictures of a protocol: its cameras around an object, and what they see.

Letters: V views, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch, joined_cameras, orbit_cameras
from sdi_gs.contracts import Representation
from sdi_gs.evaluation.extent import Extent
from sdi_gs.evaluation.icosphere import icosphere
from sdi_gs.pictures.framing import training_framing
from sdi_gs.pictures.images import to_uint8
from sdi_gs.pictures.views import render_views, split_cameras
from sdi_gs.settings.cameras import CameraConfig
from sdi_gs.settings.protocols import BACKGROUNDS, ViewProtocol
from sdi_gs.splats.sight import MARGIN
from sdi_gs.toybox.truth import held_out_cameras

SUBDIVISIONS = 2
"""Of T3Bench's icosphere."""
PLACES = 10 * 4**SUBDIVISIONS + 2
"""Its vertices, 162."""
NEARLY_UP = 0.99
"""Share of a direction along z from which T3Bench turns its cameras by y."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Pictures of an object."""

    cameras: CameraBatch  # V of them
    rgb: np.ndarray  # [V, H, W, 3] uint8
    alpha: np.ndarray  # [V, H, W] uint8


def cameras_of(protocol: ViewProtocol, extent: Extent | None) -> CameraBatch:
    """Return a protocol's cameras around an object; those of one of which nothing is visible stand as usual.

    A ring with a distance of its own stands around the origin, as the published ones do.
    """
    usual = training_framing(CameraConfig())
    match protocol.placement:
        case "held-out":
            return held_out_cameras(protocol.size)
        case "icosphere":
            assert protocol.distance is not None
            centre, half_side = ((0.0, 0.0, 0.0), 1.0) if extent is None else (extent.centre, extent.half_side)
            places = torch.from_numpy(icosphere(SUBDIVISIONS).vertices) * protocol.distance * half_side
            rings = [_looking_in(places, fov, protocol.size).moved(centre) for fov in protocol.fov_y_deg]
            return joined_cameras(rings)
        case "ring":
            azimuths = torch.tensor(protocol.azimuths_deg)
            (fov,) = protocol.fov_y_deg
            if protocol.distance is not None:
                middle, distance = (0.0, 0.0, 0.0), protocol.distance
            elif extent is None:
                middle, distance = usual.middle, usual.sight * MARGIN / np.sin(np.radians(0.5 * fov))
            else:
                middle, distance = extent.middle, extent.radius * MARGIN / np.sin(np.radians(0.5 * fov))
            return orbit_cameras(
                azimuths,
                torch.full_like(azimuths, protocol.elevation_deg),
                torch.full_like(azimuths, float(distance)),
                torch.full_like(azimuths, fov),
                width=protocol.size,
                height=protocol.size,
            ).moved(middle)


def shown_views(representation: Representation, cameras: CameraBatch, protocol: ViewProtocol) -> Shown:
    """Render a protocol's pictures; few are held in more than a byte for each value."""
    rgb, alpha = [], []
    for part in split_cameras(cameras):
        render = render_views(representation, part, BACKGROUNDS[protocol.background])
        rgb.append(to_uint8(render.rgb))
        alpha.append(to_uint8(render.alpha)[..., 0])
    return Shown(cameras=cameras, rgb=np.concatenate(rgb), alpha=np.concatenate(alpha))


def _looking_in(
    places: Tensor,  # [V, 3]
    fov_y_deg: float,
    size: int,
) -> CameraBatch:
    """Return cameras at these places that look at the origin, with T3Bench's upward directions."""
    outward = torch.nn.functional.normalize(places.double(), dim=-1)
    up = torch.where((outward[:, 2:].abs() < NEARLY_UP), torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0.0, 1.0, 0.0]))
    right = torch.nn.functional.normalize(torch.linalg.cross(up.double(), outward), dim=-1)
    down = torch.linalg.cross(right, outward)
    poses = torch.eye(4).repeat(len(places), 1, 1)
    poses[:, :3, :3] = torch.stack([right, down, -outward], dim=-1).float()
    poses[:, :3, 3] = places.float()
    focal = 0.5 * size / np.tan(np.radians(0.5 * fov_y_deg))
    intrinsics = torch.tensor([[focal, 0.0, 0.5 * size], [0.0, focal, 0.5 * size], [0.0, 0.0, 1.0]])
    return CameraBatch(
        world_from_camera=poses,
        intrinsics=intrinsics.float().repeat(len(places), 1, 1),
        azimuth_deg=torch.rad2deg(torch.atan2(outward[:, 1], outward[:, 0])).float(),
        elevation_deg=torch.rad2deg(torch.asin(outward[:, 2].clamp(-1.0, 1.0))).float(),
        width=size,
        height=size,
    )
