"""Pictures of the render view: a render of the client's camera, or the views of the last training step.

Letters: H W pixels of the picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import assert_never

import numpy as np
import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.contracts import DiffusionPrior, GuidedViews, Representation
from sdi_gs.pictures.images import to_uint8
from sdi_gs.viewer.labels import Mode

SOLID = 0.5
"""Alpha above which a pixel shows a depth or a normal."""


@dataclass(frozen=True, kw_only=True)
class Pose:
    """A client's camera: OpenCV axes, in the training world."""

    world_from_camera: tuple[tuple[float, ...], ...]
    """4 rows of 4."""
    fov_y: float
    """Vertical field of view, radians."""
    aspect: float
    """Width over height of the client's canvas."""


def pose_camera(pose: Pose, *, width: int, height: int) -> CameraBatch:
    """Return a batch of one camera; its azimuth and elevation, which only prompts need, are 0."""
    focal = 0.5 * height / math.tan(0.5 * pose.fov_y)
    intrinsics = [[focal, 0.0, 0.5 * width], [0.0, focal, 0.5 * height], [0.0, 0.0, 1.0]]
    return CameraBatch(
        world_from_camera=torch.tensor([pose.world_from_camera], dtype=torch.float32),
        intrinsics=torch.tensor([intrinsics]),
        azimuth_deg=torch.zeros(1),
        elevation_deg=torch.zeros(1),
        width=width,
        height=height,
    )


@torch.no_grad()
def render_picture(
    representation: Representation,
    pose: Pose,
    *,
    mode: Mode,
    background: tuple[float, float, float],
    width: int,
    height: int,
    device: torch.device,
) -> np.ndarray:  # [H, W, 3] uint8
    """Render one mode of one camera in one call of the representation."""
    camera = pose_camera(pose, width=width, height=height).to(device)
    behind = torch.tensor([background], device=device)
    output = representation.render(camera, behind, with_depth=mode in ("depth", "normal"))
    alpha = output.alpha[0]
    match mode:
        case "rgb":
            picture = output.rgb[0]
        case "alpha":
            picture = alpha.expand(-1, -1, 3)
        case "depth":
            picture = _over(depth_shades(_depth(output.depth), alpha), alpha, behind[0])
        case "normal":
            normals = world_normals(_depth(output.depth)[..., 0], camera)
            picture = _over(0.5 * normals + 0.5, alpha, behind[0])
        case "denoised target":
            raise ValueError("the denoised target belongs to training's own cameras: use target_picture")
        case _:
            assert_never(mode)
    return to_uint8(picture)


def depth_shades(
    depth: Tensor,  # [H, W, 1]
    alpha: Tensor,  # [H, W, 1]
) -> Tensor:  # [H, W, 3]
    """Map depth to shades from light (the nearest solid pixel) to dark (the farthest)."""
    solid = alpha > SOLID
    if not bool(solid.any()):
        return torch.zeros_like(depth).expand(-1, -1, 3)
    values = depth[solid]
    near, far = values.min(), values.max()
    return (1.0 - 0.9 * (depth - near) / (far - near).clamp_min(1e-6)).clamp(0.0, 1.0).expand(-1, -1, 3)


def world_normals(
    depth: Tensor,  # [H, W] camera z
    camera: CameraBatch,  # one
) -> Tensor:  # [H, W, 3]
    """Return unit normals in world axes, facing the camera, from the gradient of the depth.

    Representations have no comparable normals of their own.
    """
    height, width = depth.shape
    intrinsics, pose = camera.intrinsics[0], camera.world_from_camera[0]
    x = (torch.arange(width, device=depth.device) + 0.5 - intrinsics[0, 2]) / intrinsics[0, 0]
    y = (torch.arange(height, device=depth.device) + 0.5 - intrinsics[1, 2]) / intrinsics[1, 1]
    points = torch.stack([x[None, :] * depth, y[:, None] * depth, depth], dim=-1)
    down, right = torch.gradient(points, dim=(0, 1))
    # The image's right cross its down points away from the camera.
    normals = torch.nn.functional.normalize(torch.linalg.cross(down, right), dim=-1)
    return normals @ pose[:3, :3].T


@torch.no_grad()
def target_picture(
    views: GuidedViews,
    prior: DiffusionPrior,
    *,
    aspect: float,
    background: tuple[float, float, float],
) -> np.ndarray:  # [H, W, 3] uint8
    """Return the first view that a target was computed for on the left, and its denoised target on the right."""
    render = views.rgb[:1].clamp(0.0, 1.0).cpu()
    decoded = prior.decode_latents(views.target[:1]) if views.pictures is None else views.pictures[:1]
    target = decoded.clamp(0.0, 1.0).float().cpu()
    if target.shape != render.shape:
        target = _resized(target, render.shape[1], render.shape[2])
    pair = to_uint8(torch.cat([render[0], target[0]], dim=1))
    return letterboxed(pair, aspect, background)


def letterboxed(
    picture: np.ndarray,  # [h, w, 3] uint8
    aspect: float,
    background: tuple[float, float, float],
) -> np.ndarray:  # [H, W, 3] uint8
    """Center the picture on the smallest canvas of this aspect that holds it."""
    height, width = picture.shape[:2]
    full_height, full_width = max(height, round(width / aspect)), max(width, round(height * aspect))
    canvas = np.empty((full_height, full_width, 3), np.uint8)
    canvas[:] = to_uint8(torch.tensor(background))
    top, left = (full_height - height) // 2, (full_width - width) // 2
    canvas[top : top + height, left : left + width] = picture
    return canvas


def _depth(depth: Tensor | None) -> Tensor:  # [H, W, 1]
    if depth is None:
        raise ValueError("the representation gave no depth")
    return depth[0]


def _over(
    picture: Tensor,  # [H, W, 3]
    alpha: Tensor,  # [H, W, 1]
    background: Tensor,  # [3]
) -> Tensor:  # [H, W, 3]
    return torch.where(alpha > SOLID, picture, background)


def _resized(
    images: Tensor,  # [B, h, w, 3]
    height: int,
    width: int,
) -> Tensor:  # [B, H, W, 3]
    moved = torch.nn.functional.interpolate(
        images.permute(0, 3, 1, 2), (height, width), mode="bilinear", align_corners=False
    )
    return moved.permute(0, 2, 3, 1)
