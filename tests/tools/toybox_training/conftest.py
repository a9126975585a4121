"""Networks of no use that train in seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from smallest_networks import smallest_unet, smallest_vae
from toybox_training.autoencoder import VaeTrainingConfig
from toybox_training.denoiser import UnetTrainingConfig
from toybox_training.loop import LoopConfig

LOOP = LoopConfig(steps=3, learning_rate=1e-3, report_every=3)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Operations this small only get slower when they are shared out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def small_vae() -> VaeTrainingConfig:
    """The smallest VAE, three steps."""
    return smallest_vae(LOOP)


@pytest.fixture
def small_unet() -> UnetTrainingConfig:
    """The smallest U-Net, three steps."""
    return smallest_unet(LOOP)
