"""Networks of no use that train in seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from sdi_gs.toybox.training.autoencoder import VaeTrainingConfig
from sdi_gs.toybox.training.denoiser import UnetTrainingConfig
from sdi_gs.toybox.training.loop import LoopConfig


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Operations this small only get slower when they are shared out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def small_vae() -> VaeTrainingConfig:
    """A VAE of a few thousand weights, three steps."""
    loop = LoopConfig(steps=3, learning_rate=1e-3, report_every=3)
    return VaeTrainingConfig(loop=loop, block_channels=(8, 8, 8), batch_size=2)


@pytest.fixture
def small_unet() -> UnetTrainingConfig:
    """A U-Net of one attention level, three steps."""
    return UnetTrainingConfig(
        loop=LoopConfig(steps=3, learning_rate=1e-3, report_every=3),
        num_latents=60,
        batch_size=6,
        block_channels=(8, 64),
        text_width=16,
        text_layers=1,
        companions=4,
        report_count=4,
    )
