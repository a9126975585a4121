"""Regularisers of Gaussians as pure functions; each returns a scalar.

Letters: B cameras, N Gaussians, C channels, H W pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def fog_loss(
    alpha: Tensor,  # [B, H, W, 1]
) -> Tensor:
    """Compute the mean of a(1 - a): zero for pixels that are empty or opaque, 1/4 at most."""
    return (alpha * (1.0 - alpha)).mean()


def compactness_loss(
    means: Tensor,  # [N, 3]
    opacities: Tensor,  # [N] in (0, 1)
) -> Tensor:
    """Compute the opacity-weighted mean squared distance from the origin."""
    return (opacities * means.square().sum(dim=-1)).sum() / opacities.detach().sum().clamp_min(1e-8)


def needle_loss(
    log_scales: Tensor,  # [N, 3]
    max_anisotropy: float,
) -> Tensor:
    """Compute the mean squared excess of log(longest / middle axis) over log(max_anisotropy).

    Discs are free, needles are not.
    """
    if log_scales.device.type == "cpu" and log_scales.dtype == torch.float32 and len(log_scales):
        # Compiles a numba kernel.
        from sdi_gs.representations.needle_kernel import NeedleLoss

        return NeedleLoss.apply(log_scales, math.log(max_anisotropy))
    ordered = log_scales.sort(dim=-1).values
    excess = ordered[:, 2] - ordered[:, 1] - torch.log(torch.tensor(max_anisotropy)).to(log_scales, non_blocking=True)
    return excess.clamp_min(0.0).square().mean()


def total_variation(
    pictures: Tensor,  # [B, H, W, C]
) -> Tensor:
    """Compute twice the mean squared differences between neighbours, down and across (LucidDreamer's ``tv_loss``)."""
    down, across = pictures[:, 1:] - pictures[:, :-1], pictures[:, :, 1:] - pictures[:, :, :-1]
    return 2.0 * (down.square().mean() + across.square().mean())


def disparity(
    depth: Tensor,  # [B, H, W, 1] expected z depth, scene units
    alpha: Tensor,  # [B, H, W, 1]
    focal: Tensor,  # [B] focal lengths over the picture's height
) -> Tensor:  # [B, H, W, 1] in [0, 1]
    """Return disparity with the far end of the background at 0 and the nearest pixel at 1, as LucidDreamer renders it.

    Its depth is the sum of the Gaussians' depths by their weights, which is 0 where nothing is, so that the background
    is the nearest; what is opaque is moved 10 units back.
    """
    seen = focal[:, None, None, None] / (depth * alpha + 10.0 * alpha + 1e-5)
    behind = torch.where(alpha <= 0.1, seen, torch.inf).amin(dim=(1, 2, 3), keepdim=True)
    lowest, highest = seen.amin(dim=(1, 2, 3), keepdim=True), seen.amax(dim=(1, 2, 3), keepdim=True)
    base = torch.where(behind.isfinite(), behind, lowest)
    return ((seen - base) / (highest - base).clamp_min(1e-6)).clamp(0.0, 1.0)
