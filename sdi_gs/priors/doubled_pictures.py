"""Upsampling of an autoencoder in one convolution instead of two operations, on CPUs.

diffusers doubles a picture's sides, which makes four equal pixels of each, and convolves the result with a 3x3 kernel:
nine products for each of the four, most of them with the same pixel. With those weights added up beforehand, a
transposed convolution of 4x4 weights and stride 2 gives the same with four products, in a quarter to a half of the
time. A card has other kernels, for which nothing was measured.

Letters: O channels out, I channels in.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def double_at_once(network: Any) -> None:
    """Let the upsampling blocks of a frozen network double and convolve at once; the same up to rounding."""
    from diffusers.models.upsampling import Upsample2D

    for block in network.modules():
        if isinstance(block, Upsample2D) and _is_plain(block):
            # diffusers' own way for networks that were trained like this.
            plain: Any = block
            plain.conv, plain.use_conv_transpose = _transposed(plain.conv), True


def _is_plain(block: Any) -> bool:
    """Return whether a block doubles the nearest pixels and convolves them with a 3x3 kernel, and nothing else."""
    convolution = getattr(block, "conv", None)
    return (
        type(convolution) is nn.Conv2d
        and block.interpolate
        and block.norm is None
        and (convolution.kernel_size, convolution.padding) == ((3, 3), (1, 1))
    )


@torch.no_grad()
def _transposed(convolution: nn.Conv2d) -> nn.ConvTranspose2d:
    """Return the transposed convolution that equals doubling a picture's sides and then this convolution."""
    weight, bias = convolution.weight, convolution.bias
    made = nn.ConvTranspose2d(
        convolution.in_channels,
        convolution.out_channels,
        kernel_size=4,
        stride=2,
        padding=1,
        bias=bias is not None,
        device=weight.device,
        dtype=weight.dtype,
    )
    made.weight.copy_(_summed(weight))
    if bias is not None and made.bias is not None:
        made.bias.copy_(bias)
    return made.requires_grad_(False).eval()


def _summed(
    weight: Tensor,  # [O, I, 3, 3]
) -> Tensor:  # [I, O, 4, 4]
    """Return a pixel's weights for the 4x4 pixels around the four that it becomes."""
    turned, (out, given) = weight.flip(2, 3), weight.shape[:2]
    summed = weight.new_zeros(out, given, 4, 4)
    for row in (0, 1):
        for column in (0, 1):
            summed[:, :, row : row + 3, column : column + 3] += turned
    return summed.transpose(0, 1)
