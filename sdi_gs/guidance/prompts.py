"""View-dependent prompts and their embeddings.

Letters: B images, N negatives per image, L tokens, E embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdi_gs.cameras import VIEW_WORDS, CameraBatch, ViewWord
from sdi_gs.contracts import DiffusionPrior
from sdi_gs.guidance.perp_neg import PerpNegBranches, view_blend
from sdi_gs.settings.backgrounds import BackgroundName
from sdi_gs.settings.guidance import ViewPromptsConfig


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """The embeddings that condition the prior on each image of a batch."""

    prompt_embeddings: Tensor  # [B, L, E]
    negative_embeddings: Tensor  # [B, L, E] of the negative prompt, by default the empty text
    perp_neg: PerpNegBranches | None = None
    """Further negative branches; None for classifier-free guidance."""


class PromptConditions:
    """A prompt's embeddings for every view word and background, and those of the negative prompt.

    All texts are embedded once, on creation.
    """

    def __init__(
        self,
        prior: DiffusionPrior,
        prompt: str,
        *,
        negative_prompt: str = "",
        backgrounds: Sequence[BackgroundName] = ("white",),
        view_prompts: ViewPromptsConfig | None = None,
    ) -> None:
        texts_by_view = view_prompts or ViewPromptsConfig()
        given: dict[ViewWord, str | None] = {
            "front view": texts_by_view.front,
            "side view": texts_by_view.side,
            "back view": texts_by_view.back,
            "overhead view": texts_by_view.overhead,
        }
        by_view = {view: f"{prompt}, {view}" if given[view] is None else given[view] for view in VIEW_WORDS}
        combinations = [(view, background) for view in VIEW_WORDS for background in backgrounds]
        texts = [f"{by_view[view]}, {background} background" for view, background in combinations]
        rows = prior.embed_prompts([*texts, negative_prompt])
        self._by_view_and_background = dict(zip(combinations, rows[:-1], strict=True))
        self._negative = rows[-1]

    def for_cameras(self, cameras: CameraBatch, backgrounds: Sequence[BackgroundName], *, perp_neg: bool) -> Conditions:
        """Return the embeddings for a batch of cameras: those of the nearest view words, or Perp-Neg's blends."""
        if perp_neg:
            prompt_embeddings, branches = self._blended(cameras, backgrounds)
        else:
            prompt_embeddings, branches = self.prompt_embeddings(cameras.view_words(), backgrounds), None
        return Conditions(
            prompt_embeddings=prompt_embeddings,
            negative_embeddings=self.negative_embeddings(len(cameras)),
            perp_neg=branches,
        )

    def prompt_embeddings(self, views: Sequence[ViewWord], backgrounds: Sequence[BackgroundName]) -> Tensor:
        """Return the prompt's embeddings [B, L, E] for images with the given view words and backgrounds."""
        combinations = zip(views, backgrounds, strict=True)
        return torch.stack([self._by_view_and_background[combination] for combination in combinations])

    def negative_embeddings(self, count: int) -> Tensor:
        """Return the negative prompt's embedding, repeated to [B, L, E]."""
        return self._negative.expand(count, *self._negative.shape)

    def _blended(self, cameras: CameraBatch, backgrounds: Sequence[BackgroundName]) -> tuple[Tensor, PerpNegBranches]:
        """Return positive embeddings [B, L, E], blended by the cameras' angles, and the negative branches."""
        angles = zip(cameras.azimuth_deg.tolist(), cameras.elevation_deg.tolist(), strict=True)
        blends = [view_blend(azimuth, elevation) for azimuth, elevation in angles]
        embeddings, positives, negatives = self._by_view_and_background, [], []
        for blend, background in zip(blends, backgrounds, strict=True):
            parts = [weight * embeddings[view, background] for view, weight in blend.positive]
            positives.append(torch.stack(parts).sum(dim=0))
            negatives.append(torch.stack([embeddings[view, background] for view, _ in blend.negative]))
        weights = torch.tensor([[weight for _, weight in blend.negative] for blend in blends], dtype=torch.float64)
        return torch.stack(positives), PerpNegBranches(
            embeddings=torch.stack(negatives), weights=weights.to(self._negative.device, non_blocking=True)
        )
