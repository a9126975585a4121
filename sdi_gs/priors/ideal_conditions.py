"""What conditions the closed-form priors: embeddings of toybox's prompts, and the cameras of a view word.

An embedding is one token of width E = 16 + 10 + 4 + 3: a class one-hot, a colour one-hot, the weights of the four view
words and a background one-hot. A block of zeros leaves that property open; all zeros is the unconditional prompt. The
prior of two objects adds three blocks: the relation, the second object's class and its colour (``ideal_worlds.py``).

Letters: B prompts or cameras, E embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from sdi_gs.cameras import VIEW_WORDS, CameraBatch, ViewWord, orbit_cameras
from sdi_gs.settings.backgrounds import BACKGROUND_NAMES, BackgroundName
from sdi_gs.settings.priors import EVEN_FRONT_SHARE, IdealPriorConfig
from sdi_gs.toybox.captions import ToyboxPrompt
from sdi_gs.toybox.classes import CLASSES, COLOUR_NAMES, ClassName

_Name = TypeVar("_Name", bound=str)


def embed(prompts: Sequence[ToyboxPrompt]) -> Tensor:  # [B, 1, E]
    """Return the embeddings of parsed prompts."""
    rows = [
        [float(prompt.class_name == name) for name in CLASSES]
        + [float(prompt.colour == name) for name in COLOUR_NAMES]
        + [float(prompt.view == word) for word in VIEW_WORDS]
        + [float(prompt.background == name) for name in BACKGROUND_NAMES]
        for prompt in prompts
    ]
    return torch.tensor(rows)[:, None]


def properties_of(
    embedding: Tensor,  # [E]
) -> tuple[ClassName | None, str | None, list[float], BackgroundName | None]:
    """Return what an embedding stands for: class, colour, the weights of the view words, background."""
    numbers = iter(embedding.tolist())
    classes, colours, views, backgrounds = (
        list(islice(numbers, len(names))) for names in (CLASSES, COLOUR_NAMES, VIEW_WORDS, BACKGROUND_NAMES)
    )
    return chosen(CLASSES, classes), chosen(COLOUR_NAMES, colours), views, chosen(BACKGROUND_NAMES, backgrounds)


def heard_views(
    config: IdealPriorConfig,
    named: Sequence[float],  # weights of VIEW_WORDS, all 0 without a word
) -> list[float]:
    """Return the weights of the view words that a prompt comes to, some of its words forgotten.

    Without a word they stay all 0, which stands for every side alike, unless fronts are more or less than that.
    """
    total, front = sum(named), config.front_share
    dropped = config.view_words_dropped if total > 0.0 else 1.0
    if dropped == 0.0 or (total == 0.0 and front == EVEN_FRONT_SHARE):
        return list(named)
    seen: dict[ViewWord, float] = {
        "front view": front,
        "side view": 2.0 * (1.0 - front) / 3.0,
        "back view": (1.0 - front) / 3.0,
    }
    return [
        (1.0 - dropped) * weight + dropped * (total or 1.0) * seen.get(word, 0.0)
        for word, weight in zip(VIEW_WORDS, named, strict=True)
    ]


def side_cameras(config: IdealPriorConfig, view: ViewWord | None, count: int, rng: np.random.Generator) -> CameraBatch:
    """Draw cameras of one side, or of all, with stratified azimuths that cover its whole range."""
    strata = (np.arange(count) + rng.random(count)) / count
    match view:
        case "front view":
            azimuth = -45.0 + 90.0 * strata
        case "back view":
            azimuth = 135.0 + 90.0 * strata
        case "side view":
            azimuth = np.where(strata < 0.5, 45.0 + 180.0 * strata, 135.0 + 180.0 * strata)
        case "overhead view" | None:
            azimuth = 360.0 * strata
    low, high = (60.0, 85.0) if view == "overhead view" else config.elevation_deg
    elevation = low + (high - low) * rng.random(count)
    return orbit_cameras(
        torch.from_numpy(azimuth).float(),
        torch.from_numpy(elevation).float(),
        torch.full((count,), config.distance),
        torch.full((count,), config.fov_y_deg),
        width=config.image_size,
        height=config.image_size,
    )


def chosen(
    names: Sequence[_Name],
    one_hot: Sequence[float],  # one number per name
) -> _Name | None:
    """Return the name whose number is not zero, or None."""
    return next((name for name, on in zip(names, one_hot, strict=True) if on > 0.0), None)
