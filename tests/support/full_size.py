"""Stable Diffusion 2.1 base at full size on a device that is not there, and gsplat's rasteriser by its shapes."""

from __future__ import annotations

import inspect
from typing import Any

import gsplat
import torch
from as_if_cuda import CUDA
from torch import Tensor

from sdi_gs.priors.latent_diffusion import LatentDiffusionPrior
from sdi_gs.priors.noise_schedules import scaled_linear_schedule
from sdi_gs.priors.published import default_dtype, published_config


class Tokenizer:
    """As many tokens as words, by no vocabulary."""

    model_max_length = 77

    def __call__(self, texts: Any, *, return_tensors: str | None = None, **_: Any) -> Any:
        ids = torch.ones((len(texts), 77), dtype=torch.int64) if return_tensors else [1] * (len(texts.split()) + 2)
        return type("Tokens", (), {"input_ids": ids})


def full_size_prior() -> LatentDiffusionPrior:
    """As ``load_latent_diffusion`` would place it on a card: U-Net and text encoder in half precision."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device(CUDA), default_dtype(torch.float16):
        text_encoder: Any = CLIPTextModel(CLIPTextConfig(**published_config("text_encoder")))
        unet: Any = UNet2DConditionModel(**published_config("unet_512"))
    with torch.device(CUDA):
        vae: Any = AutoencoderKL(**published_config("vae"))
    tokenizer: Any = Tokenizer()
    return LatentDiffusionPrior(
        name="stable diffusion 2.1 base",
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        unet=unet,
        vae=vae,
        schedule=scaled_linear_schedule(),
        prediction_type="epsilon",
    )


class RasterizerByShape:
    """gsplat's results without their values: right shapes and types, and gradients to all that gets one."""

    def __init__(self) -> None:
        self.signature = inspect.signature(gsplat.rasterization)
        self.calls: list[dict[str, Any]] = []

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor, dict[str, Any]]:
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        self.calls.append(given)
        means, colors = given["means"], given["colors"]
        views, count = len(given["viewmats"]), len(means)
        means2d = means.new_zeros(views, count, 2) + (means + given["quats"][:, :3] + given["scales"])[None, :, :2]
        pixels = (views, given["height"], given["width"])
        seen = (means2d.sum() + given["opacities"].sum()) * means.new_ones(*pixels, 1)
        meta = {
            "radii": torch.ones((views, count, 2), dtype=torch.int32, device=means.device),
            "means2d": means2d,
            "width": given["width"],
            "height": given["height"],
            "n_cameras": views,
            "gaussian_ids": None,
        }
        return seen + colors.mean(dim=0), seen, meta
