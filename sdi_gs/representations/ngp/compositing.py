"""Emission and absorption along rays (Max 1995): weights, opacity and weighted sums, with their gradients.

A sample of density s over a length d absorbs 1 - exp(-s d) of the light that reaches it.

Letters: R rays, P samples of all rays, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, assert_never

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sdi_gs.representations.ngp.backends import Backend, backend_for, has_triton, imported, is_installed
from sdi_gs.representations.ngp.marching import Samples
from sdi_gs.representations.ngp.triton_compositing import TritonComposite, mark_visible

MIN_TRANSMITTANCE = 1e-4
"""Transmittance below which samples are not drawn (nerfacc's early stop)."""

_SMALLEST_RAYS = 256

CompositingBackend = Literal["numba", "nerfacc", "triton", "torch"]


@dataclass(frozen=True, kw_only=True)
class Composite:
    """The blended samples of rays."""

    weights: Tensor  # [P] share of the ray's light that is the sample's
    opacity: Tensor  # [R] sum of the ray's weights
    sums: Tensor  # [R, C] of weight times value


def compositing_backend(device: torch.device, dtype: torch.dtype) -> CompositingBackend:
    """Return numba for float32 on the CPU, for float32 on CUDA nerfacc or Triton if one is there, else torch."""
    if dtype != torch.float32:
        return "torch"
    match device.type:
        case "cpu":
            return "numba"
        case "cuda":
            if is_installed("nerfacc"):
                return "nerfacc"
            return "triton" if has_triton() else "torch"
        case _:
            return "torch"


def composite(
    density: Tensor,  # [P] at least 0, per scene unit
    values: Tensor,  # [P, C]
    samples: Samples,  # P of them
    *,
    backend: CompositingBackend | None = None,
) -> Composite:
    """Blend the samples of every ray front to back; differentiable by density and values."""
    match backend or compositing_backend(density.device, density.dtype):
        case "numba":
            return Composite(
                **dict(zip(("weights", "opacity", "sums"), _Composite.apply(density, values, samples), strict=True))
            )
        case "triton":
            weights, opacity, sums = TritonComposite.apply(density, values, samples.ray_starts, samples.step)
            return Composite(weights=weights, opacity=opacity, sums=sums)
        case "nerfacc":
            return _accumulate(_weights_nerfacc(density, samples), values, samples)
        case "torch":
            return _accumulate(_weights_torch(density, samples), values, samples)
        case other:
            assert_never(other)


@torch.no_grad()
def visible(
    density: Tensor,  # [P]
    samples: Samples,
    min_alpha: float,
    *,
    backend: Backend | None = None,
) -> Tensor:  # [P] bool
    """Mark the samples that light reaches and that absorb at least ``min_alpha`` of it."""
    backend = backend or backend_for(density)
    if backend == "triton":
        return mark_visible(density, samples.ray_starts, samples.step, min_alpha, MIN_TRANSMITTANCE)
    if backend == "numba":
        from sdi_gs.rasterize.threads import run_on_ranges
        from sdi_gs.representations.ngp.kernels import compositing

        mask = torch.empty(len(density), dtype=torch.bool)
        run_on_ranges(
            compositing.mark_visible,
            len(samples.ray_starts) - 1,
            _SMALLEST_RAYS,
            density.contiguous().numpy(),
            samples.ray_starts.numpy(),
            np.float32(samples.step),
            np.float32(min_alpha),
            np.float32(MIN_TRANSMITTANCE),
            mask.view(torch.uint8).numpy(),
        )
        return mask
    depths = density * samples.step
    return (torch.exp(-_depth_before(depths, samples)) >= MIN_TRANSMITTANCE) & (-torch.expm1(-depths) >= min_alpha)


def _depth_before(
    depths: Tensor,  # [P] optical
    samples: Samples,
) -> Tensor:  # [P]
    """Sum the earlier samples' optical depths on the same ray."""
    # A running sum over all rays minus its value at the ray's start; float64 limits the cancellation.
    total = torch.cat([depths.new_zeros(1, dtype=torch.float64), depths.double().cumsum(0)])
    return (total[:-1] - total[samples.ray_starts[samples.ray_ids]]).to(depths.dtype)


def _weights_torch(density: Tensor, samples: Samples) -> Tensor:  # [P]
    depths = density * samples.step
    return torch.exp(-_depth_before(depths, samples)) * -torch.expm1(-depths)


def _weights_nerfacc(density: Tensor, samples: Samples) -> Tensor:  # [P]
    starts = samples.ray_starts
    packed = torch.stack([starts[:-1], starts[1:] - starts[:-1]], dim=-1)
    half = 0.5 * samples.step
    weights, _, _ = imported("nerfacc").render_weight_from_density(
        samples.distances - half, samples.distances + half, density, packed_info=packed
    )
    return weights


def _accumulate(
    weights: Tensor,  # [P]
    values: Tensor,  # [P, C]
    samples: Samples,
) -> Composite:
    num_rays = len(samples.ray_starts) - 1
    opacity = weights.new_zeros(num_rays).index_add(0, samples.ray_ids, weights)
    sums = values.new_zeros(num_rays, values.shape[1]).index_add(0, samples.ray_ids, weights[:, None] * values)
    return Composite(weights=weights, opacity=opacity, sums=sums)


class _Composite(torch.autograd.Function):
    """Compute weights, opacity and sums from density and values."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        density: Tensor,  # [P]
        values: Tensor,  # [P, C]
        samples: Samples,
    ) -> tuple[Tensor, Tensor, Tensor]:
        from sdi_gs.rasterize.threads import run_on_ranges
        from sdi_gs.representations.ngp.kernels import compositing

        num_rays = len(samples.ray_starts) - 1
        density, values = density.detach().contiguous(), values.detach().contiguous()
        weights, opacity = torch.empty(len(density)), torch.empty(num_rays)
        sums = torch.empty((num_rays, values.shape[1]))
        run_on_ranges(
            compositing.composite,
            num_rays,
            _SMALLEST_RAYS,
            density.numpy(),
            values.numpy(),
            samples.ray_starts.numpy(),
            np.float32(samples.step),
            *(t.numpy() for t in (weights, opacity, sums)),
        )
        ctx.save_for_backward(density, values, weights)
        ctx.samples = samples
        return weights, opacity, sums

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad_weights: Tensor, grad_opacity: Tensor, grad_sums: Tensor
    ) -> tuple[Tensor | None, ...]:
        from sdi_gs.rasterize.threads import run_on_ranges
        from sdi_gs.representations.ngp.kernels import compositing

        density, values, weights = ctx.saved_tensors
        samples: Samples = ctx.samples
        grad_density, grad_values = torch.empty_like(density), torch.empty_like(values)
        run_on_ranges(
            compositing.composite_backward,
            len(samples.ray_starts) - 1,
            _SMALLEST_RAYS,
            density.numpy(),
            values.numpy(),
            weights.numpy(),
            samples.ray_starts.numpy(),
            np.float32(samples.step),
            *(t.contiguous().numpy() for t in (grad_weights, grad_opacity, grad_sums)),
            *(t.numpy() for t in (grad_density, grad_values)),
        )
        return grad_density, grad_values, None
