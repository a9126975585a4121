"""Weights of the terms of the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from sdi_gs.settings.bounds import SHARE, WEIGHT, Range, check_settings

LossSpace = Literal["latents", "pixels"]


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the terms of the loss; the distillation term is 0.5 * mean squared distance to the target."""

    distillation: Annotated[float, WEIGHT] = 1.0
    """Weight of the distance between the views and their target."""
    space: LossSpace = "latents"
    """Where the distance is measured: between latents, or between pictures, for which the target is decoded once and
    no gradient passes through the encoder."""
    fog: Annotated[float, WEIGHT] = 0.1
    """Weight of mean a(1 - a), which makes every pixel either empty or opaque."""
    fog_start: Annotated[float, SHARE] = 0.0
    """Share of the run after which the fog term counts, ramping up linearly to the end."""
    compactness: Annotated[float, WEIGHT] = 0.0
    """Weight of the opacity-weighted mean squared distance from the origin, against growth."""
    needles: Annotated[float, WEIGHT] = 0.01
    """Weight of the penalty on Gaussians longer than ``max_anisotropy``."""
    max_anisotropy: Annotated[float, Range(1.0, 1e6)] = 8.0
    """Ratio of the longest to the middle axis above which a Gaussian counts as a needle."""

    picture_tv: Annotated[float, WEIGHT] = 0.0
    """Weight of the squared differences between neighbouring pixels of the renders of Gaussians (LucidDreamer)."""
    depth_tv: Annotated[float, WEIGHT] = 0.0
    """Weight of the squared differences between neighbouring pixels of their disparity, brought to [0, 1]
    (LucidDreamer)."""
    mean_scale: Annotated[float, WEIGHT] = 0.0
    """Weight of the mean standard deviation of the Gaussians, scene units (LucidDreamer)."""

    def __post_init__(self) -> None:
        check_settings(self)
