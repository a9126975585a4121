"""What a prior is given of a prompt and of the views: embeddings, with a view word or with the cameras.

Letters: B images, N negatives per image, L tokens, E embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdi_gs.cameras import VIEW_WORDS, CameraBatch, ViewWord
from sdi_gs.contracts import DiffusionPrior
from sdi_gs.contracts.prior_extras import ShorteningPrior
from sdi_gs.errors import UserError
from sdi_gs.guidance.perp_neg import PerpNegBranches, view_blend
from sdi_gs.settings.backgrounds import BackgroundChoice
from sdi_gs.settings.guidance import ViewKnowledge, ViewPromptsConfig, require_cameras


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What conditions the prior on each image of a batch."""

    prompt_embeddings: Tensor  # [B, L, E]
    negative_embeddings: Tensor  # [B, L, E] of the negative prompt, by default the empty text
    perp_neg: PerpNegBranches | None = None
    """Further negative branches; None for classifier-free guidance."""
    cameras: CameraBatch | None = None
    """The images' cameras, B of them, which every branch gets; None if the embeddings name the views."""


class PromptConditions:
    """A prompt's embeddings for every view word and background, and those of the negative prompt.

    All texts are embedded once, on creation. They name the background unless that is "random", or
    ``name_background`` is False. With ``views="cameras"`` they name no view, and ``for_cameras`` adds the
    cameras. Raises UserError if the prior does not know cameras, and if the prompt names a view beside them.
    """

    def __init__(
        self,
        prior: DiffusionPrior,
        prompt: str,
        *,
        negative_prompt: str = "",
        backgrounds: Sequence[BackgroundChoice] = ("white",),
        name_background: bool = True,
        view_prompts: ViewPromptsConfig | None = None,
        views: ViewKnowledge = "words",
    ) -> None:
        self._views: ViewKnowledge = views
        if views == "cameras":
            require_cameras(prior.name, known=prior.knows_cameras)
            _refuse_view_words(prompt)
        by_view: dict[ViewWord | None, tuple[str, str]]
        own = view_prompts or ViewPromptsConfig()
        by_view = {None: (prompt, "")} if views == "cameras" else _texts_by_view(prompt, own)
        endings = {name: f", {name} background" if name_background else "" for name in backgrounds} | {"random": ""}
        texts = _fitting_texts(prior, by_view, {name: endings[name] for name in backgrounds})
        # Each once: backgrounds that are not named share their texts.
        different = list(dict.fromkeys(texts.values()))
        rows = prior.embed_prompts([*different, negative_prompt])
        by_text = dict(zip(different, rows[:-1], strict=True))
        self._by_view_and_background = {key: by_text[text] for key, text in texts.items()}
        self._negative = rows[-1]

    def for_cameras(
        self, cameras: CameraBatch, backgrounds: Sequence[BackgroundChoice], *, perp_neg: bool
    ) -> Conditions:
        """Return the conditions of a batch of cameras: view words, the nearest or Perp-Neg's blends, or the cameras.

        Raises ValueError for Perp-Neg where the embeddings name no view.
        """
        told = cameras if self._views == "cameras" else None
        if perp_neg and told is not None:
            raise ValueError('Perp-Neg blends view words: make the conditions with views="words"')
        if perp_neg:
            prompt_embeddings, branches = self._blended(cameras, backgrounds)
        else:
            views = cameras.view_words() if told is None else [None] * len(cameras)
            prompt_embeddings, branches = self.prompt_embeddings(views, backgrounds), None
        return Conditions(
            prompt_embeddings=prompt_embeddings,
            negative_embeddings=self.negative_embeddings(len(cameras)),
            perp_neg=branches,
            cameras=told,
        )

    def prompt_embeddings(self, views: Sequence[ViewWord | None], backgrounds: Sequence[BackgroundChoice]) -> Tensor:
        """Return the prompt's embeddings [B, L, E] for images with the given view words and backgrounds.

        With ``views="cameras"`` all words are None.
        """
        combinations = zip(views, backgrounds, strict=True)
        return torch.stack([self._by_view_and_background[combination] for combination in combinations])

    def negative_embeddings(self, count: int) -> Tensor:
        """Return the negative prompt's embedding, repeated to [B, L, E]."""
        return self._negative.expand(count, *self._negative.shape)

    def _blended(self, cameras: CameraBatch, backgrounds: Sequence[BackgroundChoice]) -> tuple[Tensor, PerpNegBranches]:
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


def _fitting_texts(
    prior: DiffusionPrior,
    by_view: Mapping[ViewWord | None, tuple[str, str]],
    backgrounds: Mapping[BackgroundChoice, str],
) -> dict[tuple[ViewWord | None, BackgroundChoice], str]:
    """Return the texts to embed, by view and background: sentences with the view's and the background's words.

    ``backgrounds`` are those words, "" for none. Where a prior reads only so much, the end of the sentence is what it
    misses, never the words behind it.
    """
    endings: dict[tuple[ViewWord | None, BackgroundChoice], str] = {
        (view, background): f"{ending}{words}"
        for view, (_, ending) in by_view.items()
        for background, words in backgrounds.items()
    }
    texts = {}
    for sentence in dict.fromkeys(sentence for sentence, _ in by_view.values()):
        own = {key: ending for key, ending in endings.items() if by_view[key[0]][0] == sentence}
        fitting = prior.shortened(sentence, list(own.values())) if isinstance(prior, ShorteningPrior) else sentence
        texts |= {key: f"{fitting}{ending}" for key, ending in own.items()}
    # In the order of views and backgrounds.
    return {key: texts[key] for key in endings}


def _texts_by_view(prompt: str, own: ViewPromptsConfig) -> dict[ViewWord | None, tuple[str, str]]:
    """Return the prompt and each view's words, or the side's own text, which needs none."""
    given: dict[ViewWord, str | None] = {
        "front view": own.front,
        "side view": own.side,
        "back view": own.back,
        "overhead view": own.overhead,
    }
    return {view: (prompt, f", {view}") if text is None else (text, "") for view, text in given.items()}


def _refuse_view_words(prompt: str) -> None:
    """Raise UserError if the prompt names a view, which would contradict most of the cameras."""
    named = [word for word in VIEW_WORDS if word in prompt.lower()]
    if named:
        raise UserError(
            f'"{prompt}" names the {named[0]}, but with guidance.views cameras the prior gets the camera of every view:'
            " leave the view out, or use --guidance.views words"
        )
