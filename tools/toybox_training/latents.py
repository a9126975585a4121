"""Tens of thousands of encoded renders with labels: the training data of the U-Net.

Letters: N latents, C latent channels, h w latent pixels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdi_gs.files import replacement_for
from sdi_gs.toybox.splits import Split, split_seed
from toybox_training.autoencoder import encode
from toybox_training.examples import ExamplesConfig, draw_examples
from toybox_training.feed import Feed
from toybox_training.workers import ALONE, Workers

# Stream of the "prior" split, past those of the VAE.
LATENTS_STREAM = 4_000_000

Attributes = tuple[int | None, int | None, int | None, int | None]
"""Class, colour, view and background as indices; None if a caption does not name it."""


@dataclass(frozen=True, kw_only=True)
class LatentSet:
    """N encoded pictures."""

    latents: Tensor  # [N, C, h, w] float16
    attributes: Tensor  # [N, 4] int64: class, colour, view, background

    def save(self, path: Path) -> None:
        """Write the set to one file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacement_for(path, overwrite=True) as aside:
            torch.save({"latents": self.latents, "attributes": self.attributes}, aside)


def load_latents(path: Path) -> LatentSet:
    """Load a set written by ``LatentSet.save``."""
    state = torch.load(path, weights_only=True)
    return LatentSet(latents=state["latents"], attributes=state["attributes"])


@dataclass(frozen=True)
class RenderedChunks:
    """Draws pictures [B, 3, H, W] and labels [B, 4] by the chunk's number."""

    examples: ExamplesConfig
    size: int
    split: Split

    def __call__(self, chunk: int) -> tuple[Tensor, Tensor]:
        """Draw and render."""
        examples = draw_examples(self.examples, self.size, split_seed(self.split, LATENTS_STREAM + chunk))
        attributes = [examples.classes, examples.colours, examples.views, examples.backgrounds]
        return examples.render()[0], torch.stack(attributes, dim=1)


def encode_examples(
    vae: Any,
    config: ExamplesConfig,
    count: int,
    *,
    split: Split = "prior",
    at_once: int = 500,
    workers: Workers = ALONE,
    feeders: int = 0,
) -> LatentSet:
    """Render and encode ``count`` pictures, rounded up to whole chunks of ``at_once`` with a stream each.

    Several processes encode equal shares, and all get the whole set. ``feeders`` as in ``LoopConfig``.
    """
    latents, attributes = [], []
    feed = Feed(RenderedChunks(config, at_once, split), processes=feeders)
    for turn in range(-(-count // (at_once * workers.count))):
        images, shown = feed.batch(turn * workers.count + workers.rank)
        latents.append(encode(vae, images).half().contiguous())
        attributes.append(shown)
    return LatentSet(
        latents=workers.gather(torch.cat(latents)),
        attributes=workers.gather(torch.cat(attributes)),
    )


class Companions:
    """The latents that share a caption: candidates for the posterior mean."""

    def __init__(self, attributes: Tensor) -> None:  # [N, 4]
        self._attributes = attributes.numpy()
        self._cells: dict[Attributes, np.ndarray] = {}
        by_class = defaultdict(list)
        for index, name in enumerate(self._attributes[:, 0].tolist()):
            by_class[name].append(index)
        self._by_class = {name: np.array(indices) for name, indices in by_class.items()}

    def draw(self, asked: Attributes, count: int, rng: np.random.Generator) -> np.ndarray:
        """Draw ``count`` indices of latents that fit a caption, with repetition only if there are fewer."""
        cell = self._cell(asked)
        if len(cell) < count:
            return np.resize(cell, count)
        # The order does not matter; the largest cell is the whole set.
        return cell[rng.choice(len(cell), count, replace=False, shuffle=False)]

    def _cell(self, asked: Attributes) -> np.ndarray:
        if asked not in self._cells:
            class_index = asked[0]
            rows = np.arange(len(self._attributes)) if class_index is None else self._by_class[class_index]
            for column, value in enumerate(asked):
                if value is not None:
                    rows = rows[self._attributes[rows, column] == value]
            self._cells[asked] = rows
        return self._cells[asked]


def posterior_means(
    noised: Tensor,  # [B, D]
    own: Tensor,  # [B, D] the latents that were noised
    candidates: Tensor,  # [B, K, D] others under the same caption
    level: Tensor,  # [B] alphas_cumprod
) -> Tensor:  # [B, D]
    """Return the expected clean latents given the noised ones, over the own latent and its companions.

    Self-normalised importance weights (stable target field, arXiv 2302.00670): the minimiser of the squared error is
    the same as for the own latent up to O(1/K), and the variance of the target falls where noise is strong.
    """
    centres = torch.cat([own[:, None], candidates], dim=1)
    scaled = level.sqrt()[:, None, None] * centres
    distance = (noised[:, None] - scaled).square().sum(dim=2)
    shares = torch.softmax(-0.5 * distance / (1.0 - level)[:, None], dim=1)
    return (shares[:, :, None] * centres).sum(dim=1)


def names_everything(attributes: Sequence[int], says: tuple[bool, bool, bool]) -> Attributes:
    """Return what a caption names; colour, view and background only if ``says`` is true."""
    class_index, *rest = attributes
    colour, view, background = (value if said else None for value, said in zip(rest, says, strict=True))
    return class_index, colour, view, background
