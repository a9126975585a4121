"""Stable Diffusion 2.1 for the checks: the user's weights if they are on disk, else random ones in its architecture.

Nothing is downloaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from sdi_gs.doctor.miniature import NARROW, miniature_networks, prior_of_networks
from sdi_gs.priors.catalog import SD21_BASE
from sdi_gs.priors.fetch import folder_on_disk
from sdi_gs.priors.latent_diffusion import LatentDiffusionConfig, LatentDiffusionPrior
from sdi_gs.priors.latent_diffusion_loading import load_latent_diffusion
from sdi_gs.priors.published import ModelName, Networks, published_networks

MODEL: ModelName = "sd21-base"


@dataclass(frozen=True, kw_only=True)
class Sd21Weights:
    """The weights that a check uses."""

    folder: Path | None
    """Folder of the user's weights; None for random ones."""
    miniature: bool = False
    """Whether narrow networks replace the published ones."""

    @property
    def words(self) -> str:
        """Description for the table."""
        if self.miniature:
            return "random weights in a narrow copy of Stable Diffusion 2.1's networks"
        if self.folder is None:
            return "random weights in Stable Diffusion 2.1's architecture (sdi-gs priors fetch sd21-base for the real)"
        return "Stable Diffusion 2.1 base's own weights"


def weights_at_hand(*, miniature: bool) -> Sd21Weights:
    """Find the user's weights in the hub's cache, unless a miniature is wanted; never downloads."""
    if miniature:
        return Sd21Weights(folder=None, miniature=True)
    return Sd21Weights(folder=next(filter(None, map(folder_on_disk, SD21_BASE.sources)), None))


def load_sd21(weights: Sd21Weights, *, device: torch.device, dtype: torch.dtype) -> LatentDiffusionPrior:
    """Load the prior with U-Net and text encoder in ``dtype``; random weights of all dtypes agree up to rounding."""
    if weights.folder is not None:
        encoding = LatentDiffusionConfig(encoding="mode")
        return load_latent_diffusion(weights.folder, name=MODEL, config=encoding, device=device, dtype=dtype)
    return prior_of_networks(random_networks(weights, device=device, dtype=dtype), model=MODEL)


def random_networks(weights: Sd21Weights, *, device: torch.device, dtype: torch.dtype) -> Networks:
    """Draw networks in float32 with a fixed seed, then round them to ``dtype``."""
    # Diffusers and transformers draw from the global generators; fork_rng restores their state.
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if weights.miniature:
            drawn = miniature_networks(NARROW, device=device)
        else:
            drawn = published_networks(MODEL, device=device, dtype=torch.float32)
    # Diffusers' own ``to`` warns about layers to keep in float32, although there are none.
    text_encoder, unet = (torch.nn.Module.to(network, dtype) for network in (drawn.text_encoder, drawn.unet))
    return Networks(text_encoder=text_encoder, unet=unet, vae=drawn.vae)
