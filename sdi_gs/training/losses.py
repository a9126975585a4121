"""The distillation term of the loss."""

from __future__ import annotations

from torch import Tensor


def distillation_loss(
    views: Tensor,  # latents [B, C, h, w] or pictures [B, H, W, 3]
    target: Tensor,  # the same shape
) -> Tensor:
    """Compute 0.5 * mean squared distance (SDI paper, algorithm 2; the published code divides by B once more)."""
    return 0.5 * (views - target).square().mean()
