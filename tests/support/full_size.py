"""Stable Diffusion 2.1 base at full size on a fake CUDA device, and a stand-in for gsplat's rasteriser by shapes."""

from __future__ import annotations

import inspect
from typing import Any

import gsplat
import torch
from as_if_cuda import CUDA
from torch import Tensor

from sdi_gs.doctor.miniature import prior_of_networks
from sdi_gs.priors.latent_diffusion import LatentDiffusionPrior
from sdi_gs.priors.published import published_networks


def full_size_prior() -> LatentDiffusionPrior:
    """Return the prior as ``load_latent_diffusion`` places it on a card: U-Net and text encoder in half precision."""
    return prior_of_networks(published_networks("sd21-base", device=CUDA, dtype=torch.float16), model="sd21-base")


class RasterizerByShape:
    """Stand-in for ``gsplat.rasterization``: right shapes and types, and gradients to the same inputs; no values."""

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
