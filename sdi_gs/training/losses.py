"""The distillation term of the loss."""

from __future__ import annotations

from torch import Tensor


def distillation_loss(
    latents: Tensor,  # [B, C, h, w]
    target: Tensor,  # [B, C, h, w]
) -> Tensor:
    """Compute 0.5 * mean squared distance (SDI paper, algorithm 2; the published code divides by B once more)."""
    return 0.5 * (latents - target).square().mean()
