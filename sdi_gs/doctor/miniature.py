"""Narrow networks of Stable Diffusion 2.1's block types with random weights, and a prior of any such networks."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch

from sdi_gs.priors.latent_diffusion import LatentDiffusionPrior
from sdi_gs.priors.noise_schedules import scaled_linear_schedule
from sdi_gs.priors.published import CAMERA_LABELS, PREDICTION_TYPES, ModelName, Networks, published_config


@dataclass(frozen=True, kw_only=True)
class Miniature:
    """Sizes of the three networks. All else, block types included, is as published."""

    image_size: int = 64
    """Side of the images in pixels; a multiple of 8."""
    unet_channels: tuple[int, ...] = (32, 64, 128, 128)
    """Channels of each level; all levels but the last attend to the text."""
    unet_heads: tuple[int, ...] = (1, 2, 4, 4)
    """Attention heads of each level."""
    unet_groups: int = 16
    """Groups of the normalization."""
    unet_layers: int = 2
    """Residual blocks of each level."""
    vae_channels: tuple[int, int, int, int] = (16, 32, 32, 32)
    vae_groups: int = 16
    vae_layers: int = 2
    text_width: int = 64
    text_inner: int = 256
    """Width of the hidden layers."""
    text_layers: int = 2
    text_tokens: tuple[tuple[str, int], ...] = ()
    """Vocabulary size and special tokens in the text encoder's config, if they differ from CLIP's."""
    four_views: bool = False
    """Whether the U-Net takes four views and their cameras, as MVDream's."""


NARROW = Miniature()
"""The published depths with a tenth of the channels."""

SMALLEST = Miniature(
    unet_channels=(32, 64),
    unet_heads=(4, 8),
    unet_groups=8,
    unet_layers=1,
    vae_channels=(8, 8, 16, 16),
    vae_groups=4,
    vae_layers=1,
    text_width=16,
    text_inner=32,
)
"""Two levels of one block each: milliseconds for a prediction."""


def miniature_networks(sizes: Miniature, *, device: torch.device | str) -> Networks:
    """Draw the networks in float32 from torch's global generator; none is trainable."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    attending = len(sizes.unet_channels) - 1
    unet: dict[str, Any] = published_config("unet_512") | {
        "sample_size": sizes.image_size // 8,
        "block_out_channels": sizes.unet_channels,
        "down_block_types": ("CrossAttnDownBlock2D",) * attending + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * attending,
        "attention_head_dim": sizes.unet_heads,
        "norm_num_groups": sizes.unet_groups,
        "layers_per_block": sizes.unet_layers,
        "cross_attention_dim": sizes.text_width,
    }
    if sizes.four_views:
        unet |= CAMERA_LABELS
    vae: dict[str, Any] = published_config("vae") | {
        "sample_size": sizes.image_size,
        "block_out_channels": sizes.vae_channels,
        "norm_num_groups": sizes.vae_groups,
        "layers_per_block": sizes.vae_layers,
    }
    text: dict[str, Any] = published_config("text_encoder") | {
        "hidden_size": sizes.text_width,
        "intermediate_size": sizes.text_inner,
        "num_hidden_layers": sizes.text_layers,
        "num_attention_heads": 2,
        # CLIP's own config names half precision.
        "torch_dtype": "float32",
        **dict(sizes.text_tokens),
    }
    with torch.device(device):
        made: tuple[Any, ...] = (
            CLIPTextModel(CLIPTextConfig(**text)),
            UNet2DConditionModel(**unet),
            AutoencoderKL(**vae),
        )
    text_encoder, unet_made, vae_made = (network.requires_grad_(False).eval() for network in made)
    return Networks(text_encoder=text_encoder, unet=unet_made, vae=vae_made)


def prior_of_networks(networks: Networks, *, model: ModelName) -> LatentDiffusionPrior:
    """Return a prior of untrained networks; every word of a prompt is some token, and always the same one."""
    text: Any = networks.text_encoder.config
    tokenizer: Any = _WordTokenizer(vocabulary=text.vocab_size, model_max_length=text.max_position_embeddings)
    return LatentDiffusionPrior(
        name=model,
        tokenizer=tokenizer,
        text_encoder=networks.text_encoder,
        unet=networks.unet,
        vae=networks.vae,
        schedule=scaled_linear_schedule(),
        prediction_type=PREDICTION_TYPES[model],
    )


@dataclass(frozen=True, kw_only=True)
class _WordTokenizer:
    """The part of a tokenizer that a prior uses; a word's token is its hash."""

    vocabulary: int
    model_max_length: int

    def __call__(self, texts: str | Sequence[str], **_: Any) -> SimpleNamespace:
        if isinstance(texts, str):
            return SimpleNamespace(input_ids=self._tokens(texts))
        rows = [(self._tokens(text) + [0] * self.model_max_length)[: self.model_max_length] for text in texts]
        return SimpleNamespace(input_ids=torch.tensor(rows))

    def _tokens(self, text: str) -> list[int]:
        return [zlib.crc32(word.encode()) % self.vocabulary for word in text.split()]
