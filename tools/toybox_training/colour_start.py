"""Initial weights for the VAE that already carry colour: reconstructions start as blurred pictures.

An ``AutoencoderKL`` with random weights learns luminance first and then one colour axis after the other, each after
hundreds of steps. Here the first channels of the trunk carry red, green and blue and their negatives from end to end:
``silu(x) - silu(-x) = x``, so the nonlinearity before the last convolution passes them, and a group norm over pairs of
opposites only scales them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

COLOURS = 3
LATENT_NOISE_LOG_VAR = -4.0
"""Initial log variance of the posterior: noise well below the latents."""


@torch.no_grad()
def start_from_colours(vae: Any) -> None:
    """Write the colour path into an ``AutoencoderKL`` with random weights; all widths must be at least 6."""
    encoder, decoder = vae.encoder, vae.decoder
    _split(encoder.conv_in)
    _carry_on(encoder)
    _join(encoder.conv_out)
    _keep(vae.quant_conv, COLOURS)
    latents = vae.quant_conv.out_channels // 2
    vae.quant_conv.weight[latents:] *= 0.1
    vae.quant_conv.bias[latents:] = LATENT_NOISE_LOG_VAR
    _keep(vae.post_quant_conv, COLOURS)
    _split(decoder.conv_in)
    _carry_on(decoder)
    _join(decoder.conv_out)


def _carry_on(network: nn.Module) -> None:
    """Make everything between first and last convolution pass the pairs; residual branches only add to them."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            if name.endswith("conv_shortcut") or ".upsamplers." in name:
                _keep(module, 2 * COLOURS)
            elif ".downsamplers." in name:
                # The padding is below and to the right: these four taps are the pixels that are averaged.
                _keep(module, 2 * COLOURS)
                _taps(module)[: 2 * COLOURS] = 0.0
                for channel in range(2 * COLOURS):
                    _taps(module)[channel, channel, :2, :2] = 0.25


def _keep(convolution: nn.Conv2d, channels: int) -> None:
    """Copy the first inputs to the first outputs."""
    taps, middle = _taps(convolution), convolution.kernel_size[0] // 2
    taps[:channels] = 0.0
    for channel in range(channels):
        taps[channel, channel, middle, middle] = 1.0
    _no_bias(convolution, channels)


def _split(convolution: nn.Conv2d) -> None:
    """Copy the first three inputs to outputs 0 to 2, and their negatives to 3 to 5."""
    taps, middle = _taps(convolution), convolution.kernel_size[0] // 2
    taps[: 2 * COLOURS] = 0.0
    for colour in range(COLOURS):
        taps[colour, colour, middle, middle] = 1.0
        taps[colour + COLOURS, colour, middle, middle] = -1.0
    _no_bias(convolution, 2 * COLOURS)


def _join(convolution: nn.Conv2d) -> None:
    """Make the first three outputs the differences of the pairs."""
    taps, middle = _taps(convolution), convolution.kernel_size[0] // 2
    taps[:COLOURS] = 0.0
    for colour in range(COLOURS):
        taps[colour, colour, middle, middle] = 1.0
        taps[colour, colour + COLOURS, middle, middle] = -1.0
    _no_bias(convolution, COLOURS)


def _taps(convolution: nn.Conv2d) -> Tensor:  # [outputs, inputs, kernel, kernel]
    return convolution.weight.data


def _no_bias(convolution: nn.Conv2d, channels: int) -> None:
    if convolution.bias is not None:
        convolution.bias.data[:channels] = 0.0
