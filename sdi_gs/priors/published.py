"""Published configs, and networks from them without weights, to count memory and for tests.

The configs are in ``sd21/`` and ``sd15/``; ``docs/sd21.md`` names their sources.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal

import torch

from sdi_gs.contracts import PredictionType

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ModelName = Literal["sd21-base", "sd21", "mvdream"]
Component = Literal["unet_512", "unet_768", "vae", "text_encoder"]
OlderComponent = Literal["unet", "vae", "text_encoder"]

PREDICTION_TYPES: dict[ModelName, PredictionType] = {
    "sd21-base": "epsilon",
    "sd21": "v_prediction",
    "mvdream": "epsilon",
}
_UNETS: dict[ModelName, Component] = {"sd21-base": "unet_512", "sd21": "unet_768", "mvdream": "unet_512"}
CAMERA_LABELS: dict[str, Any] = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 16}
"""Settings of a U-Net that takes cameras of 4 x 4 numbers, and by them four views together (MVDream)."""


@dataclass(frozen=True, kw_only=True)
class Networks:
    """The three networks of a Stable Diffusion model."""

    text_encoder: Any
    unet: Any
    vae: Any


def published_config(component: Component) -> dict[str, Any]:
    """Return the arguments in a config file of Stable Diffusion 2.1."""
    return _config("sd21", component)


def older_config(component: OlderComponent) -> dict[str, Any]:
    """Return the arguments in a config file of Stable Diffusion 1.5."""
    return _config("sd15", component)


def of_four_views(unet: Mapping[str, Any]) -> dict[str, Any]:
    """Return MVDream's config of a U-Net from 2.1-base's: pictures of 256 pixels, and cameras as class labels."""
    return {**unet, "sample_size": 32, **CAMERA_LABELS}


def _config(folder: str, component: str) -> dict[str, Any]:
    text = resources.files("sdi_gs.priors").joinpath(folder, f"{component}.json").read_text(encoding="utf-8")
    return {key: value for key, value in json.loads(text).items() if not key.startswith("_")}


def published_networks(
    model: ModelName, *, device: torch.device | str, dtype: torch.dtype, image_size: int | None = None
) -> Networks:
    """Build random networks on a device: U-Net and text encoder in ``dtype``, VAE in float32 or wider, none trainable.

    ``image_size`` replaces the model's own, pixels. On the meta device they take no time and no memory.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    vae_config = published_config("vae")
    unet_config = published_config(_UNETS[model])
    if model == "mvdream":
        unet_config = of_four_views(unet_config)
    if image_size is not None:
        unet_config["sample_size"] = image_size // 2 ** (len(vae_config["block_out_channels"]) - 1)
    with torch.device(device):
        with default_dtype(dtype):
            unet: Any = UNet2DConditionModel(**unet_config)
            text_encoder: Any = CLIPTextModel(CLIPTextConfig(**published_config("text_encoder")))
        vae: Any = AutoencoderKL(**vae_config)
    if text_encoder.dtype != dtype:
        # CLIP's config contains a type, which would override the argument.
        text_encoder = text_encoder.to(dtype)
    networks = (text_encoder, unet, vae)
    text_encoder, unet, vae = (network.requires_grad_(False).eval() for network in networks)
    return Networks(text_encoder=text_encoder, unet=unet, vae=vae)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Make a type the default of new float tensors inside the context."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
