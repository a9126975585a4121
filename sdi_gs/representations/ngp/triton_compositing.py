"""Blending along rays and the samples' visibility by Triton's kernels, forward and backward.

Letters: R rays, P samples, C channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sdi_gs.representations.ngp.triton_launch import launch, triton_kernels


class TritonComposite(torch.autograd.Function):
    """Compute weights [P], opacity [R] and sums [R, C] from density and values."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        density: Tensor,  # [P]
        values: Tensor,  # [P, C]
        ray_starts: Tensor,  # [R + 1] int64
        step: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        density, values = density.detach().contiguous(), values.detach().contiguous()
        num_rays, channels = len(ray_starts) - 1, values.shape[1]
        weights, after = torch.empty_like(density), torch.empty_like(density)
        opacity, sums = density.new_empty(num_rays), density.new_empty((num_rays, channels))
        given = (density, values, ray_starts, weights, after, opacity, sums, step)
        launch(triton_kernels("compositing").composite, (num_rays,), *given, **_sizes(density, channels))
        ctx.save_for_backward(values, weights, after, ray_starts)
        ctx.step = step
        return weights, opacity, sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        values, weights, after, ray_starts = ctx.saved_tensors
        above = (gradient.contiguous() for gradient in gradients)
        grad_density, grad_values = torch.empty_like(weights), torch.empty_like(values)
        given = (values, weights, after, ray_starts, *above, grad_density, grad_values, ctx.step)
        kernel, programs = triton_kernels("compositing").composite_backward, (len(ray_starts) - 1,)
        launch(kernel, programs, *given, **_sizes(values, values.shape[1]))
        return grad_density, grad_values, None, None


def mark_visible(
    density: Tensor,  # [P]
    ray_starts: Tensor,  # [R + 1] int64
    step: float,
    min_alpha: float,
    min_transmittance: float,
) -> Tensor:  # [P] bool
    """Mark the samples that light reaches and that absorb at least ``min_alpha`` of it."""
    kernels, mask = triton_kernels("compositing"), torch.empty_like(density, dtype=torch.uint8)
    given = (density.contiguous(), ray_starts, mask, step, min_alpha, min_transmittance)
    launch(*(kernels.mark_visible, (len(ray_starts) - 1,), *given), like=density, SAMPLES=kernels.SAMPLES, num_warps=1)
    return mask.view(torch.bool)


def _sizes(like: Tensor, channels: int) -> dict[str, Any]:
    """Return the sizes that kernels of ``channels`` channels are compiled for: a warp has a ray."""
    wide = 1 << max(channels - 1, 0).bit_length()
    samples = triton_kernels("compositing").SAMPLES
    return {"like": like, "CHANNELS": channels, "WIDE": wide, "SAMPLES": samples, "num_warps": 1}
