"""View-dependent prompts, embedded once per run.

Letters: B images, L tokens, E embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sdi_gs.backgrounds import BackgroundName
from sdi_gs.cameras import VIEW_WORDS, ViewWord
from sdi_gs.contracts import DiffusionPrior


class PromptConditions:
    """Embeddings of a prompt under every view word and background, and of the unconditional (or negative) text."""

    def __init__(
        self,
        prior: DiffusionPrior,
        prompt: str,
        *,
        negative_prompt: str = "",
        backgrounds: Sequence[BackgroundName] = ("white",),
    ) -> None:
        situations = [(view, background) for view in VIEW_WORDS for background in backgrounds]
        texts = [f"{prompt}, {view}, {background} background" for view, background in situations]
        rows = prior.embed_prompts([*texts, negative_prompt])
        self._by_situation = dict(zip(situations, rows[:-1], strict=True))
        self._unconditional = rows[-1]

    def conditional(self, views: Sequence[ViewWord], backgrounds: Sequence[BackgroundName]) -> Tensor:
        """Embeddings [B, L, E] for images seen from the given sides over the given backgrounds."""
        return torch.stack([self._by_situation[situation] for situation in zip(views, backgrounds, strict=True)])

    def unconditional(self, count: int) -> Tensor:
        """The unconditional embedding repeated, [B, L, E]."""
        return self._unconditional.expand(count, *self._unconditional.shape)
