"""Miniature networks have Stable Diffusion's blocks, and serve a prior."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sdi_gs.doctor.miniature import NARROW, SMALLEST, Miniature, miniature_networks, prior_of_networks
from sdi_gs.priors.published import published_config


def test_the_narrow_ones_have_the_published_blocks_and_depths() -> None:
    networks = miniature_networks(NARROW, device="meta")
    pairs = ((networks.unet, published_config("unet_512")), (networks.vae, published_config("vae")))
    for network, published in pairs:
        for name in ("down_block_types", "up_block_types", "layers_per_block", "act_fn"):
            told = network.config[name]
            assert (list(told) if isinstance(told, tuple) else told) == published[name], name
    assert networks.unet.config.use_linear_projection


@pytest.mark.parametrize("sizes", [SMALLEST, replace(SMALLEST, image_size=128)], ids=["64", "128"])
def test_a_prior_of_them_encodes_and_predicts(sizes: Miniature) -> None:
    torch.manual_seed(0)
    prior = prior_of_networks(miniature_networks(sizes, device="cpu"), model="sd21")
    assert (prior.image_size, prior.prediction_type) == (sizes.image_size, "v_prediction")
    generator = torch.Generator().manual_seed(0)
    latents = prior.encode_images(torch.rand(1, sizes.image_size, sizes.image_size, 3), generator)
    told = prior.embed_prompts(["a blue robot", "a red robot"])
    noise = prior.predict_noise(latents.expand(2, -1, -1, -1), 500, told)
    assert noise.shape == (2, 4, sizes.image_size // 8, sizes.image_size // 8)
    assert noise.isfinite().all() and not torch.equal(noise[0], noise[1]), "words tell prompts apart"
    assert torch.equal(prior.embed_prompts(["a blue robot"])[0], told[0])
