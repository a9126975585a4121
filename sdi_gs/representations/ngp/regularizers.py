"""The published run's regularisers as pure functions; each returns a scalar.

Letters: B views, H W pixels, R rays, P samples.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CONVEXITY_SIZE = 8
"""Side in pixels of the normal images that are compared (SDI paper)."""


def orientation_loss(
    weights: Tensor,  # [P] of the samples
    normals: Tensor,  # [P, 3] world, unit
    directions: Tensor,  # [P, 3] world, unit, from the camera
    num_rays: Tensor | int,
) -> Tensor:
    """Compute the squared cosines of normals that face away, by weight, per ray (Ref-NeRF); weights get no gradient."""
    away = (normals * directions).sum(dim=-1).clamp_min(0.0)
    total = (weights.detach() * away.square()).sum()
    return total / torch.as_tensor(num_rays, device=total.device).clamp_min(1)


def sparsity_loss(
    alpha: Tensor,  # [B, H, W, 1]
) -> Tensor:
    """Compute the mean of sqrt(opacity^2 + 0.01)."""
    return (alpha.square() + 0.01).sqrt().mean()


def opaqueness_loss(
    alpha: Tensor,  # [B, H, W, 1]
) -> Tensor:
    """Compute the mean entropy of a pixel's opacity, nats; opacity is clamped to [0.001, 0.999]."""
    opacity = alpha.clamp(1e-3, 1.0 - 1e-3)
    return -(opacity * opacity.log() + (1.0 - opacity) * (1.0 - opacity).log()).mean()


def z_variance_loss(
    z_variance: Tensor,  # [B, H, W, 1]
    alpha: Tensor,  # [B, H, W, 1]
) -> Tensor:
    """Compute the mean variance of depth over pixels with opacity above one half; 0 if there are none."""
    solid = alpha.detach() > 0.5
    return torch.where(solid, z_variance, 0.0).sum() / solid.sum().clamp_min(1)


def convexity_loss(
    normals: Tensor,  # [B, H, W, 3] world, times opacity
    camera_from_world: Tensor,  # [B, 4, 4]
) -> Tensor:
    """Compute minus the mean sine from each normal to its right and its lower neighbour, at 8x8 pixels (SDI paper).

    In camera axes (x right, y down), so that a bulge lowers the loss and a dent raises it from every side. This follows
    the paper; ``published_convexity_loss`` follows its code.
    """
    in_camera = torch.einsum("bij,bhwj->bihw", camera_from_world[:, :3, :3], normals)
    small = F.interpolate(
        in_camera, size=(CONVEXITY_SIZE, CONVEXITY_SIZE), mode="bilinear", align_corners=False, antialias=True
    )
    # Turning right is a turn about the axis up, -y; turning down is one about the axis to the right, x.
    rightwards = -torch.linalg.cross(small[..., :, :-1], small[..., :, 1:], dim=1)[:, 1]
    downwards = torch.linalg.cross(small[..., :-1, :], small[..., 1:, :], dim=1)[:, 0]
    return -(rightwards.mean() + downwards.mean())


def published_convexity_loss(
    normals: Tensor,  # [B, H, W, 3] world, times opacity
    alpha: Tensor,  # [B, H, W, 1]
) -> Tensor:
    """Compute the convexity term as the published code does.

    Its normals are those that it displays: made unit in each pixel, moved into [0, 1] and multiplied by opacity; they
    are shrunk without a filter. Its sines are the third components, along the world's z, of the products with the right
    neighbour and, in the opposite order, with the lower one.
    """
    shown = (0.5 * F.normalize(normals, dim=-1) + 0.5) * alpha
    size = (CONVEXITY_SIZE, CONVEXITY_SIZE)
    small = F.interpolate(shown.permute(0, 3, 1, 2), size=size, mode="bilinear", align_corners=False)
    rightwards = torch.linalg.cross(small[..., :, :-1], small[..., :, 1:], dim=1)[:, 2]
    upwards = torch.linalg.cross(small[..., 1:, :], small[..., :-1, :], dim=1)[:, 2]
    return -(rightwards.mean() + upwards.mean())


def scheduled(start: float, final: float, end: float, progress: float) -> float:
    """Return a weight that is linear from ``start`` to ``final`` until a share ``end`` of the run, then constant."""
    if progress >= end:
        return final
    return start + (final - start) * progress / end
