"""Toybox's networks at the smallest size, to test their training in seconds; their results are useless."""

from __future__ import annotations

from toybox_training.autoencoder import VaeTrainingConfig
from toybox_training.denoiser import UnetTrainingConfig
from toybox_training.loop import LoopConfig


def smallest_vae(loop: LoopConfig) -> VaeTrainingConfig:
    """Return the settings of a VAE with a few thousand weights."""
    return VaeTrainingConfig(loop=loop, block_channels=(8, 8, 8), batch_size=2)


def smallest_unet(loop: LoopConfig) -> UnetTrainingConfig:
    """Return the settings of a U-Net with one attention level."""
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
