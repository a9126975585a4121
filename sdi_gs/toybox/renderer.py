"""Exact renders of toybox scenes for the project's cameras.

Shading is a world-fixed light, an ambient term and a one-tap occlusion term: a function of the surface point
only, so that a representation with one colour per point can match every view.

Letters: B cameras, H W pixels, P primitives, K columns of a row, N points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.toybox.kernels.tracing import point_distances, render_batch
from sdi_gs.toybox.objects import Scene, scene_primitives
from sdi_gs.toybox.primitives import ROW_LENGTH

WHITE = (1.0, 1.0, 1.0)
# Small tasks balance the threads' load: objects differ in cost, and cores may be busy with other work.
IMAGES_PER_TASK = 4


@dataclass(frozen=True, kw_only=True)
class ToyboxRender:
    """Renders of a batch of cameras, float32 on the CPU."""

    rgb: Tensor  # [B, H, W, 3] composited over the background, [0, 1]
    alpha: Tensor  # [B, H, W, 1] share of the pixel that is covered
    depth: Tensor  # [B, H, W, 1] z depth of the surface that weighs most, scene units, 0 where empty
    normal: Tensor  # [B, H, W, 3] world normal of that surface, 0 where empty


def render_scenes(
    scenes: Sequence[Scene],  # B of them
    cameras: CameraBatch,
    background: Tensor | Sequence[float] = WHITE,  # [B, 3] or [3]
) -> ToyboxRender:
    """Render scene b with camera b. The same input gives the same bytes, whatever the number of threads.

    Raises ValueError if the counts of scenes, cameras and backgrounds differ.
    """
    batch, height, width = len(cameras), cameras.height, cameras.width
    if len(scenes) != batch:
        raise ValueError(f"{len(scenes)} scenes for {batch} cameras; one scene per camera is needed")
    colours = torch.as_tensor(background, dtype=torch.float32).cpu()
    if colours.shape not in ((3,), (batch, 3)):
        raise ValueError(f"background has shape {tuple(colours.shape)}, expected (3,) or ({batch}, 3)")
    rows, first, last = _gather_rows(scenes)
    rgb = np.empty((batch, height, width, 3), np.float32)
    rgb[:] = colours.expand(batch, 3).numpy()[:, None, None, :]
    alpha = np.zeros((batch, height, width), np.float32)
    depth = np.zeros_like(alpha)
    normal = np.zeros_like(rgb)
    poses = cameras.world_from_camera.detach().cpu().double().contiguous().numpy()
    intrinsics = cameras.intrinsics.detach().cpu().double().contiguous().numpy()
    with numba.parallel_chunksize(IMAGES_PER_TASK):
        render_batch(rows, first, last, poses, intrinsics, rgb, alpha, depth, normal)
    return ToyboxRender(
        rgb=torch.from_numpy(rgb),
        alpha=torch.from_numpy(alpha)[..., None],
        depth=torch.from_numpy(depth)[..., None],
        normal=torch.from_numpy(normal),
    )


def _gather_rows(scenes: Sequence[Scene]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the rows [P, K] of all different scenes, and each image's first and one-past-last row [B]."""
    spans: dict[Scene, tuple[int, int]] = {}
    blocks: list[np.ndarray] = []
    total = 0
    for scene in scenes:
        if scene not in spans:
            block = scene_primitives(scene)
            blocks.append(block)
            spans[scene] = (total, total + len(block))
            total += len(block)
    rows = np.concatenate(blocks) if blocks else np.zeros((0, ROW_LENGTH))
    first = np.array([spans[scene][0] for scene in scenes], np.int64)
    last = np.array([spans[scene][1] for scene in scenes], np.int64)
    return rows, first, last


def signed_distance(
    scene: Scene,
    points: Tensor,  # [N, 3] world
) -> Tensor:  # [N] float64
    """Return the distance to the nearest surface, negative inside (ellipsoids: to first order)."""
    out = np.empty(len(points))
    point_distances(scene_primitives(scene), points.detach().cpu().double().contiguous().numpy(), out)
    return torch.from_numpy(out)


def occupied(
    scene: Scene,
    points: Tensor,  # [N, 3] world
) -> Tensor:  # [N] bool
    """Return which points lie inside an object."""
    return signed_distance(scene, points) < 0.0
