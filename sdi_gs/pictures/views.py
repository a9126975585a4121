"""Rings of cameras around a scene, and renders of it without gradients.

Letters: V views, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from sdi_gs.cameras import CameraBatch, orbit_cameras
from sdi_gs.contracts import RenderOutput, Representation
from sdi_gs.row_groups import row_groups
from sdi_gs.settings.cameras import CameraConfig

VIEWS_AT_ONCE = 8
"""Views rendered in one call: a whole film at full size would exceed the memory limit."""


def ring_cameras(config: CameraConfig, count: int, size: int, *, elevation_deg: float) -> CameraBatch:
    """Return evenly spaced cameras around the object, the first in front, at the training cameras' mean distance."""
    return orbit_cameras(
        torch.arange(count) * (360.0 / count),
        torch.full((count,), float(elevation_deg)),
        torch.full((count,), 0.5 * sum(config.distance)),
        torch.full((count,), 0.5 * sum(config.fov_y_deg)),
        width=size,
        height=size,
    )


@torch.no_grad()
def render_views(
    representation: Representation,
    cameras: CameraBatch,  # V of them
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> RenderOutput:
    """Render pictures [V, H, W, 3] in [0, 1] and alpha [V, H, W, 1], returned on the CPU."""
    device = representation.device
    rgb, alpha = [], []
    for part in split_cameras(cameras):
        render = representation.render(part.to(device), torch.tensor(background, device=device).expand(len(part), 3))
        rgb.append(render.rgb.clamp(0.0, 1.0).cpu())
        alpha.append(render.alpha.cpu())
    return RenderOutput(rgb=torch.cat(rgb), alpha=torch.cat(alpha))


def split_cameras(cameras: CameraBatch, size: int = VIEWS_AT_ONCE) -> Iterator[CameraBatch]:
    """Split cameras into batches of at most ``size``."""
    for chosen in row_groups(len(cameras), size):
        yield cameras.rows(chosen)
