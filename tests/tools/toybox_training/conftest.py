"""Tiny networks that train in seconds."""

from __future__ import annotations

import pytest
from smallest_networks import smallest_unet, smallest_vae
from toybox_training.autoencoder import VaeTrainingConfig
from toybox_training.denoiser import UnetTrainingConfig
from toybox_training.loop import LoopConfig

LOOP = LoopConfig(steps=3, learning_rate=1e-3, report_every=3)


@pytest.fixture(autouse=True)
def one_thread_in_every_test(one_thread: None) -> None:
    """Every test here computes on small tensors."""


@pytest.fixture
def small_vae() -> VaeTrainingConfig:
    """The smallest VAE, three steps."""
    return smallest_vae(LOOP)


@pytest.fixture
def small_unet() -> UnetTrainingConfig:
    """The smallest U-Net, three steps."""
    return smallest_unet(LOOP)
