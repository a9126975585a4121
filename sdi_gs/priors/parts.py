"""The loaded parts of a latent diffusion model, from wherever they came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sdi_gs.contracts import PredictionType


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Tokenizer, networks and the scheduler's config."""

    tokenizer: Any
    text_encoder: Any
    unet: Any
    vae: Any
    scheduler: Mapping[str, Any]
    """Config of a diffusers scheduler."""
    notes: tuple[str, ...] = ()
    """What a user should know about how the model was read, one line each."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where weights go, and in which type."""

    device: torch.device | str
    dtype: torch.dtype
    """Type of the U-Net and of the text encoder."""

    @property
    def wide(self) -> torch.dtype:
        """Type of the VAE: float32, unless ``dtype`` is wider."""
        return torch.promote_types(self.dtype, torch.float32)


@dataclass(frozen=True, kw_only=True)
class AddOns:
    """What is added to a model by files of its own."""

    prediction_type: PredictionType | None = None
    """Replaces the model's own statement."""
    loras: tuple[tuple[Path, float], ...] = ()
    """LoRA files and their weights."""
    embeddings: tuple[Path, ...] = ()
    """Textual inversions."""


def first_weight(network: torch.nn.Module) -> torch.Tensor:
    """Return a network's first weight, whose type and device are those of its computations.

    The properties of diffusers' own models look for hooks in each of their modules first, which in a U-Net takes as
    long as many of its kernels.
    """
    return next(network.parameters())


def broken_weight(network: torch.nn.Module) -> str | None:
    """Return the name of a network's first weight that is not finite, and in which type it is not; None if all are."""
    for name, weight in network.named_parameters():
        if weight.device.type != "meta" and not bool(weight.isfinite().all()):
            return f"{name} are not finite as {str(weight.dtype).removeprefix('torch.')}"
    return None
