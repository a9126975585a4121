"""Toybox's networks at the size at which a step takes moments: good for nothing but to be trained."""

from __future__ import annotations

from toybox_training.autoencoder import VaeTrainingConfig
from toybox_training.denoiser import UnetTrainingConfig
from toybox_training.loop import LoopConfig


def smallest_vae(loop: LoopConfig) -> VaeTrainingConfig:
    """A VAE of a few thousand weights."""
    return VaeTrainingConfig(loop=loop, block_channels=(8, 8, 8), batch_size=2)


def smallest_unet(loop: LoopConfig) -> UnetTrainingConfig:
    """A U-Net of one attention level."""
    return UnetTrainingConfig(
        loop=loop,
        num_latents=60,
        batch_size=6,
        block_channels=(8, 64),
        text_width=16,
        text_layers=1,
        companions=4,
        report_count=4,
    )
