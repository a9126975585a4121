"""Regularisers of Gaussians as pure functions; each returns a scalar.

Letters: B cameras, N Gaussians, H W pixels.
"""

from __future__ import annotations

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
    ordered = log_scales.sort(dim=-1).values
    excess = ordered[:, 2] - ordered[:, 1] - torch.log(torch.tensor(max_anisotropy)).to(log_scales, non_blocking=True)
    return excess.clamp_min(0.0).square().mean()
