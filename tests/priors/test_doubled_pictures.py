"""Doubling a picture and convolving it in one convolution, beside the two operations that it stands for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.upsampling import Upsample2D
from torch import nn

from sdi_gs.doctor.miniature import SMALLEST, miniature_networks, prior_of_networks
from sdi_gs.priors.doubled_pictures import double_at_once


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(module: Any) -> Any:
    """The module in float64, with weights of its own."""
    for index, weights in enumerate(module.double().parameters()):
        weights.data = torch.randn(weights.shape, generator=seeded(index), dtype=torch.float64)
    return module.requires_grad_(False).eval()


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (5, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_block_gives_what_doubling_and_convolving_give(size: tuple[int, int], bias: bool) -> None:
    network: Any = nn.Sequential(drawn(Upsample2D(3, use_conv=True, out_channels=5, bias=bias)))
    weight, offset = network[0].conv.weight, network[0].conv.bias
    double_at_once(network)
    assert isinstance(network[0].conv, nn.ConvTranspose2d)
    pictures = torch.randn(2, 3, *size, generator=seeded(9), dtype=torch.float64)
    doubled = F.interpolate(pictures, scale_factor=2.0, mode="nearest")
    expected = F.conv2d(doubled, weight, offset, padding=1)
    torch.testing.assert_close(network(pictures), expected, atol=1e-12, rtol=0.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Upsample2D(4),
        lambda: Upsample2D(4, use_conv=True, kernel_size=1, padding=0),
        lambda: Upsample2D(4, use_conv=True, norm_type="ln_norm", elementwise_affine=True, eps=1e-5),
        lambda: Upsample2D(4, use_conv=True, interpolate=False),
        lambda: Upsample2D(4, use_conv_transpose=True),
    ],
    ids=["no convolution", "kernel of 1", "a norm", "no doubling", "transposed already"],
)
def test_other_blocks_stay_as_they_are(make: Callable[[], Upsample2D]) -> None:
    network: Any = nn.Sequential(drawn(make()))
    pictures = torch.randn(1, 4, 3, 3, generator=seeded(9), dtype=torch.float64)
    before, convolution = network(pictures), network[0].conv
    double_at_once(network)
    assert network[0].conv is convolution
    assert torch.equal(network(pictures), before)


@pytest.mark.parametrize(("device", "kind"), [("cpu", nn.ConvTranspose2d), ("meta", nn.Conv2d)])
def test_priors_decode_so_on_a_cpu_and_nowhere_else(device: str, kind: type[nn.Module]) -> None:
    networks = miniature_networks(SMALLEST, device=torch.device(device))
    prior = prior_of_networks(networks, model="sd21-base")
    blocks = [block for block in prior.vae.decoder.modules() if isinstance(block, Upsample2D)]
    assert [type(block.conv) for block in blocks] == [kind] * 3
    assert {type(block.conv) for block in prior.unet.modules() if isinstance(block, Upsample2D)} == {nn.Conv2d}
