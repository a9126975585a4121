"""The VAE's start: every colour comes through before anything is learned."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from toybox_training.autoencoder import VaeTrainingConfig, build_vae, decode, encode, measure_vae
from toybox_training.colour_start import LATENT_NOISE_LOG_VAR, start_from_colours
from toybox_training.loop import initial_weights

from sdi_gs.toybox.classes import COLOUR_NAMES


def test_a_fresh_vae_carries_each_colour_axis_through_latent_and_picture() -> None:
    vae = build_vae(VaeTrainingConfig())
    _, images, decoded = measure_vae(vae, count=24)
    latents = encode(vae, images)
    seen, shown = F.avg_pool2d(images, 4), F.avg_pool2d(decoded, 4)
    for channel in range(3):
        pairs = [seen[:, channel].flatten(), latents[:, channel].flatten(), shown[:, channel].flatten()]
        correlation = torch.corrcoef(torch.stack(pairs))
        assert correlation[0, 1] > 0.85, channel
        assert correlation[0, 2] > 0.85, channel


def test_without_it_the_colours_of_a_fresh_vae_are_no_colours() -> None:
    """What the start is for: the error of the mean colour falls for all ten."""
    config = VaeTrainingConfig()
    begun = build_vae(config)
    random = build_vae(config)
    with torch.no_grad(), initial_weights(1):
        for module in random.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.reset_parameters()
    ours, theirs = (measure_vae(vae, count=64)[0] for vae in (begun, random))
    assert ours["psnr"] > theirs["psnr"] + 5.0
    better = [ours["colour_error"][name] < theirs["colour_error"][name] for name in COLOUR_NAMES]
    assert sum(better) >= 9


def test_the_posterior_begins_narrow() -> None:
    vae = build_vae(VaeTrainingConfig())
    with torch.no_grad():
        posterior = vae.encode(torch.rand(2, 3, 64, 64) * 2.0 - 1.0).latent_dist
    assert (posterior.logvar - LATENT_NOISE_LOG_VAR).abs().mean() < 0.5


def test_it_needs_no_more_than_six_channels_and_leaves_the_others_random() -> None:
    narrow = build_vae(VaeTrainingConfig(block_channels=(8, 8, 8)))
    before = narrow.encoder.conv_in.weight[6:].clone()
    start_from_colours(narrow)
    assert torch.equal(narrow.encoder.conv_in.weight[6:], before)
    assert torch.isfinite(decode(narrow, torch.randn(1, 4, 16, 16))).all()
