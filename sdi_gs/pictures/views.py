"""Rings of cameras around a scene, and renders of it without gradients.

Letters: V views, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from sdi_gs.cameras import CameraBatch
from sdi_gs.contracts import RenderOutput, Representation
from sdi_gs.pictures.framing import Framing, training_framing
from sdi_gs.pictures.images import to_uint8
from sdi_gs.row_groups import row_groups
from sdi_gs.settings.cameras import CameraConfig

VIEWS_AT_ONCE, PIXELS_AT_ONCE = 4, 2**21
"""Views, and their pixels, that are rendered in one call: those of more leave the processor's cache."""
_PROBE_VIEWS, _PROBE_SIZE, _FAINTEST = 8, 64, 1.0 / 255.0


def ring_cameras(config: CameraConfig, count: int, size: int, *, elevation_deg: float) -> CameraBatch:
    """Return evenly spaced cameras around the object, the first in front, at the training cameras' mean distance."""
    return training_framing(config).ring(count, size, elevation_deg=elevation_deg)


@torch.no_grad()
def render_views(
    representation: Representation,
    cameras: CameraBatch,  # V of them
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
    *,
    with_depth: bool = False,
) -> RenderOutput:
    """Render pictures [V, H, W, 3] in [0, 1], alpha and, if asked for, depth [V, H, W, 1], returned on the CPU."""
    device = representation.device
    rgb, alpha, depth = [], [], []
    for part in split_cameras(cameras):
        seen, colours = part.to(device), torch.tensor(background, device=device).expand(len(part), 3)
        render = representation.render(seen, colours, **({"with_depth": True} if with_depth else {}))
        rgb.append(render.rgb.clamp(0.0, 1.0).cpu())
        alpha.append(render.alpha.cpu())
        depth += [] if render.depth is None else [render.depth.cpu()]
    return RenderOutput(rgb=torch.cat(rgb), alpha=torch.cat(alpha), depth=torch.cat(depth) if depth else None)


def split_cameras(cameras: CameraBatch, size: int = VIEWS_AT_ONCE) -> Iterator[CameraBatch]:
    """Split cameras into batches of at most ``size`` and of ``PIXELS_AT_ONCE``; a batch has one at least."""
    size = min(size, max(PIXELS_AT_ONCE // (cameras.width * cameras.height), 1))
    for chosen in row_groups(len(cameras), size):
        yield cameras.rows(chosen)


def pictures(
    representation: Representation,
    cameras: CameraBatch,  # V of them
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Iterator[np.ndarray]:
    """Yield displayable pictures, uint8 [at most V, H, W, 3], batch by batch, so that few are held at once."""
    for part in split_cameras(cameras):
        yield to_uint8(render_views(representation, part, background).rgb)


def shows_nothing(representation: Representation, framing: Framing) -> bool:
    """Return whether no camera of a small ring sees anything of a scene."""
    ring = framing.ring(_PROBE_VIEWS, _PROBE_SIZE, elevation_deg=15.0)
    return float(render_views(representation, ring).alpha.max()) < _FAINTEST
