"""Batches of the U-Net's training: latents with captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdi_gs.toybox.splits import split_seed
from toybox_training.examples import CaptionsConfig, write_caption
from toybox_training.latents import Attributes, Companions, names_everything
from toybox_training.vocabulary import MODEL_MAX_LENGTH

# Stream of the "prior" split for captions and companions, past the pictures'.
CAPTIONS_STREAM = 5_000_000


@dataclass(frozen=True, kw_only=True)
class CaptionedBatch:
    """B latents by their indices, L tokens each, and K other latents that fit the caption."""

    rows: Tensor  # [B] int64
    ids: Tensor  # [B, L] int64
    companions: Tensor  # [B, K] int64


class CaptionedBatches:
    """Batches by number."""

    def __init__(
        self,
        attributes: Tensor,  # [N, 4]
        tokenizer: Any,
        captions: CaptionsConfig,
        *,
        batch_size: int,
        unconditional_share: float,
        companions: int,
    ) -> None:
        self._attributes, self._tokenizer, self._captions = attributes, tokenizer, captions
        self._batch_size, self._unconditional_share, self._count = batch_size, unconditional_share, companions
        self._companions = Companions(attributes)
        self._ids: dict[str, Tensor] = {}

    def __call__(self, batch: int) -> CaptionedBatch:
        """Draw latents, write their captions, and find other latents that fit them."""
        rng = split_seed("prior", CAPTIONS_STREAM + batch)
        rows = rng.integers(len(self._attributes), size=self._batch_size)
        texts, asked = zip(*(self._caption(self._attributes[row].tolist(), rng) for row in rows), strict=True)
        companions = np.stack([self._companions.draw(words, self._count, rng) for words in asked])
        return CaptionedBatch(
            rows=torch.from_numpy(rows), ids=self.tokens(texts), companions=torch.from_numpy(companions)
        )

    def tokens(self, texts: Sequence[str]) -> Tensor:  # [B, L]
        """Return the texts' tokens; repeated texts are cached."""
        new = [text for text in dict.fromkeys(texts) if text not in self._ids]
        if new:
            self._ids.update(zip(new, token_ids(self._tokenizer, new), strict=True))
        return torch.stack([self._ids[text] for text in texts])

    def _caption(self, attributes: list[int], rng: np.random.Generator) -> tuple[str, Attributes]:
        """Return a caption, or the empty text, and what it names."""
        if rng.random() < self._unconditional_share:
            return "", (None, None, None, None)
        text, says = write_caption(self._captions, attributes, rng)
        return text, names_everything(attributes, says)


def token_ids(tokenizer: Any, texts: list[str]) -> Tensor:  # [B, L]
    """Tokenize, padded and truncated to the tokenizer's length."""
    found = tokenizer(texts, padding="max_length", max_length=MODEL_MAX_LENGTH, truncation=True, return_tensors="pt")
    return found.input_ids
