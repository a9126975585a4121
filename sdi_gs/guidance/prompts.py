"""View-dependent prompts, embedded once per run.

Letters: B images, L tokens, E embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sdi_gs.cameras import VIEW_WORDS, ViewWord
from sdi_gs.contracts import DiffusionPrior


class PromptConditions:
    """Embeddings of a prompt under every view word, and of the unconditional (or negative) text."""

    def __init__(self, prior: DiffusionPrior, prompt: str, negative_prompt: str = "") -> None:
        texts = [f"{prompt}, {word}" for word in VIEW_WORDS]
        rows = prior.embed_prompts([*texts, negative_prompt])
        self._by_view = dict(zip(VIEW_WORDS, rows, strict=False))
        self._unconditional = rows[-1]

    def conditional(self, words: Sequence[ViewWord]) -> Tensor:
        """Embeddings [B, L, E] for images seen from the given sides."""
        return torch.stack([self._by_view[word] for word in words])

    def unconditional(self, count: int) -> Tensor:
        """The unconditional embedding repeated, [B, L, E]."""
        return self._unconditional.expand(count, *self._unconditional.shape)
