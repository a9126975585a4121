"""Half precision for an autoencoder whose gradients are too small for it: they are scaled on the way in and back.

Letters: B images, H W pixels, C channels, h w latent pixels.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor


class BackwardScale:
    """The power of two by which gradients are multiplied inside a network; set anew by each backward pass."""

    def __init__(self) -> None:
        self.factor: Tensor | None = None


def into(
    images: Tensor,  # [B, 3, H, W] float32
    dtype: torch.dtype,
    scale: BackwardScale,
) -> Tensor:  # [B, 3, H, W] of ``dtype``
    """Return the images in a network's type; their gradient is divided by the scale, in float32."""
    return _Into.apply(images, dtype, scale)  # pyright: ignore[reportReturnType]


def out_of(
    values: Tensor,  # [B, C, h, w] of any type
    dtype: torch.dtype,
    scale: BackwardScale,
) -> Tensor:  # [B, C, h, w] of ``dtype``
    """Return a network's result in a wider type; the gradient that enters the network has 1 as its largest number.

    The mean over all latents makes gradients that float16 cannot hold. A factor that is fixed would overflow once
    they grow; this one follows them, and costs no wait for the device.
    """
    return _OutOf.apply(values, dtype, scale)  # pyright: ignore[reportReturnType]


def in_type(network: Any, dtype: torch.dtype) -> Any:
    """Return a copy of a frozen network in another type."""
    # The library's own ``to`` warns of a change of type, which is what is wanted.
    return torch.nn.Module.to(copy.deepcopy(network), dtype).requires_grad_(False).eval()


class _Into(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, images: Tensor, dtype: torch.dtype, scale: BackwardScale
    ) -> Tensor:
        ctx.wide, ctx.scale = images.dtype, scale
        return images.to(dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        assert ctx.scale.factor is not None
        return gradients[0].to(ctx.wide) / ctx.scale.factor, None, None


class _OutOf(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, values: Tensor, dtype: torch.dtype, scale: BackwardScale
    ) -> Tensor:
        ctx.narrow, ctx.scale = values.dtype, scale
        return values.to(dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        gradient = gradients[0]
        largest = gradient.abs().amax()
        # A power of two changes no digit; without a gradient, or with one that is not finite, nothing is scaled.
        exponent = torch.where(torch.isfinite(largest) & (largest > 0), -torch.floor(torch.log2(largest)), 0.0)
        ctx.scale.factor = torch.exp2(exponent.clamp(-120.0, 120.0))
        return (gradient * ctx.scale.factor).to(ctx.narrow), None, None
