"""Stable Diffusion 2.1 for the checks: the user's weights if they are here, else random ones in its own architecture.

Nothing is downloaded.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from sdi_gs.priors.catalog import SD21_BASE
from sdi_gs.priors.fetch import folder_on_disk
from sdi_gs.priors.latent_diffusion import LatentDiffusionConfig, LatentDiffusionPrior, load_latent_diffusion
from sdi_gs.priors.noise_schedules import scaled_linear_schedule
from sdi_gs.priors.published import PREDICTION_TYPES, ModelName, Networks, published_config, published_networks

MODEL: ModelName = "sd21-base"
_MINIATURE_SIZE = 64
"""Side of the miniature's images in pixels."""
_TOKENS, _VOCABULARY = 77, 49_408
"""CLIP's."""


@dataclass(frozen=True, kw_only=True)
class Sd21Weights:
    """Which weights a check uses."""

    folder: Path | None
    """The user's; None for random ones."""
    miniature: bool = False
    """Narrow networks of the same blocks in place of the published ones."""

    @property
    def words(self) -> str:
        """For the table."""
        if self.miniature:
            return "random weights in a narrow copy of Stable Diffusion 2.1's networks"
        if self.folder is None:
            return "random weights in Stable Diffusion 2.1's architecture (sdi-gs priors fetch sd21-base for the real)"
        return "Stable Diffusion 2.1 base's own weights"


def weights_at_hand(*, miniature: bool) -> Sd21Weights:
    """The user's weights from the hub's cache, unless a miniature is asked for; asks nobody."""
    if miniature:
        return Sd21Weights(folder=None, miniature=True)
    return Sd21Weights(folder=next(filter(None, map(folder_on_disk, SD21_BASE.sources)), None))


def load_sd21(weights: Sd21Weights, *, device: torch.device, dtype: torch.dtype) -> LatentDiffusionPrior:
    """The prior with its U-Net and text encoder in ``dtype``; random weights are the same for every dtype."""
    if weights.folder is not None:
        encoding = LatentDiffusionConfig(encoding="mode")
        return load_latent_diffusion(weights.folder, name=MODEL, config=encoding, device=device, dtype=dtype)
    networks = random_networks(weights, device=device, dtype=dtype)
    tokenizer: Any = _some_tokens
    return LatentDiffusionPrior(
        name=MODEL,
        tokenizer=tokenizer,
        text_encoder=networks.text_encoder,
        unet=networks.unet,
        vae=networks.vae,
        schedule=scaled_linear_schedule(),
        prediction_type=PREDICTION_TYPES[MODEL],
    )


def random_networks(weights: Sd21Weights, *, device: torch.device, dtype: torch.dtype) -> Networks:
    """Networks drawn in float32 under a fixed seed, then rounded to ``dtype``."""
    # Diffusers and transformers draw from the global generators: seed them, and put them back.
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if weights.miniature:
            drawn = _miniature_networks(device)
        else:
            drawn = published_networks(MODEL, device=device, dtype=torch.float32)
    # Diffusers' own ``to`` warns of layers to be kept in float32, of which there are none.
    text_encoder, unet = (torch.nn.Module.to(network, dtype) for network in (drawn.text_encoder, drawn.unet))
    return Networks(text_encoder=text_encoder, unet=unet, vae=drawn.vae)


def _miniature_networks(device: torch.device) -> Networks:
    """The published block types and depths, with a tenth of the channels and fewer layers of text."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    narrow = {"block_out_channels": (32, 64, 128, 128), "norm_num_groups": 16}
    width = 64
    unet: dict[str, Any] = published_config("unet_512") | narrow
    unet |= {"attention_head_dim": (1, 2, 4, 4), "cross_attention_dim": width, "sample_size": _MINIATURE_SIZE // 8}
    vae: dict[str, Any] = published_config("vae")
    vae |= {"block_out_channels": (16, 32, 32, 32), "norm_num_groups": 16, "sample_size": _MINIATURE_SIZE}
    text: dict[str, Any] = published_config("text_encoder")
    text |= {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": 2, "num_attention_heads": 2}
    with torch.device(device):
        made: tuple[Any, ...] = (
            CLIPTextModel(CLIPTextConfig(**text)).float(),
            UNet2DConditionModel(**unet),
            AutoencoderKL(**vae),
        )
    text_encoder, unet_network, vae_network = (network.requires_grad_(False).eval() for network in made)
    return Networks(text_encoder=text_encoder, unet=unet_network, vae=vae_network)


def _some_tokens(texts: str | Sequence[str], **_: Any) -> SimpleNamespace:
    """A tokenizer for networks that were never taught words: each word is some number, and always the same one."""
    if isinstance(texts, str):
        return SimpleNamespace(input_ids=_numbers(texts))
    rows = [(_numbers(text) + [0] * _TOKENS)[:_TOKENS] for text in texts]
    return SimpleNamespace(input_ids=torch.tensor(rows))


def _numbers(text: str) -> list[int]:
    return [zlib.crc32(word.encode()) % _VOCABULARY for word in text.split()]


_some_tokens.model_max_length = _TOKENS  # pyright: ignore[reportFunctionMemberAccess]
