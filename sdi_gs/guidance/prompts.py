"""View-dependent prompts, embedded once per run.

Letters: B images, N negatives per image, L tokens, E embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdi_gs.cameras import VIEW_WORDS, CameraBatch, ViewWord
from sdi_gs.contracts import DiffusionPrior
from sdi_gs.guidance.perp_neg import Negatives, view_blend
from sdi_gs.settings.backgrounds import BackgroundName
from sdi_gs.settings.guidance import ViewPromptsConfig


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What the prior is told of each image of a batch."""

    conditional: Tensor  # [B, L, E]
    unconditional: Tensor  # [B, L, E]
    negatives: Negatives | None = None


class PromptConditions:
    """Embeddings of a prompt under every view word and background, and of the unconditional (or negative) text."""

    def __init__(
        self,
        prior: DiffusionPrior,
        prompt: str,
        *,
        negative_prompt: str = "",
        backgrounds: Sequence[BackgroundName] = ("white",),
        view_prompts: ViewPromptsConfig | None = None,
    ) -> None:
        overrides = view_prompts or ViewPromptsConfig()
        given: dict[ViewWord, str | None] = {
            "front view": overrides.front,
            "side view": overrides.side,
            "back view": overrides.back,
            "overhead view": overrides.overhead,
        }
        sides = {view: f"{prompt}, {view}" if given[view] is None else given[view] for view in VIEW_WORDS}
        situations = [(view, background) for view in VIEW_WORDS for background in backgrounds]
        texts = [f"{sides[view]}, {background} background" for view, background in situations]
        rows = prior.embed_prompts([*texts, negative_prompt])
        self._by_situation = dict(zip(situations, rows[:-1], strict=True))
        self._unconditional = rows[-1]

    def for_cameras(self, cameras: CameraBatch, backgrounds: Sequence[BackgroundName], *, perp_neg: bool) -> Conditions:
        """All branches for a batch of cameras: with Perp-Neg blended by angle, else by the nearest view word."""
        if not perp_neg:
            conditional, negatives = self.conditional(cameras.view_words(), backgrounds), None
        else:
            conditional, negatives = self._blended(cameras, backgrounds)
        return Conditions(conditional=conditional, unconditional=self.unconditional(len(cameras)), negatives=negatives)

    def conditional(self, views: Sequence[ViewWord], backgrounds: Sequence[BackgroundName]) -> Tensor:
        """Embeddings [B, L, E] for images seen from the given sides over the given backgrounds."""
        return torch.stack([self._by_situation[situation] for situation in zip(views, backgrounds, strict=True)])

    def unconditional(self, count: int) -> Tensor:
        """The unconditional embedding repeated, [B, L, E]."""
        return self._unconditional.expand(count, *self._unconditional.shape)

    def _blended(self, cameras: CameraBatch, backgrounds: Sequence[BackgroundName]) -> tuple[Tensor, Negatives]:
        """Positive embeddings [B, L, E] and negative branches by the angles of the cameras."""
        angles = zip(cameras.azimuth_deg.tolist(), cameras.elevation_deg.tolist(), strict=True)
        blends = [view_blend(azimuth, elevation) for azimuth, elevation in angles]
        positives, negatives = [], []
        for blend, background in zip(blends, backgrounds, strict=True):
            parts = [share * self._by_situation[view, background] for view, share in blend.positive]
            positives.append(torch.stack(parts).sum(dim=0))
            negatives.append(torch.stack([self._by_situation[view, background] for view, _ in blend.negative]))
        weights = torch.tensor([[weight for _, weight in blend.negative] for blend in blends], dtype=torch.float64)
        return torch.stack(positives), Negatives(
            embeddings=torch.stack(negatives), weights=weights.to(self._unconditional.device, non_blocking=True)
        )
