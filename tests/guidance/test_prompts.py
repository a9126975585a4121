"""View-dependent embeddings: made once, handed out by view."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sdi_gs.contracts import NoiseSchedule
from sdi_gs.guidance.prompts import PromptConditions
from sdi_gs.priors.noise_schedules import scaled_linear_schedule


class NumberingPrior:
    """Embeds a text as the order in which it was first seen."""

    name = "numbering"
    image_size = 8
    schedule: NoiseSchedule = scaled_linear_schedule()

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.calls = 0

    def embed_prompts(self, prompts: Sequence[str]) -> Tensor:
        self.calls += 1
        self.texts.extend(prompts)
        return torch.arange(len(prompts), dtype=torch.float32)[:, None, None].expand(-1, 3, 2)

    def encode_images(self, images: Tensor, generator: torch.Generator) -> Tensor:
        raise NotImplementedError

    def decode_latents(self, latents: Tensor) -> Tensor:
        raise NotImplementedError

    def predict_noise(self, noised_latents: Tensor, timestep: int, embeddings: Tensor) -> Tensor:
        raise NotImplementedError


def texts_of(embeddings: Tensor, prior: NumberingPrior) -> list[str]:
    return [prior.texts[int(row[0, 0])] for row in embeddings]


def test_views_get_the_prompt_with_their_word_and_background() -> None:
    prior = NumberingPrior()
    conditions = PromptConditions(prior, "a red mug", backgrounds=("white", "black"))
    conditional = conditions.conditional(
        ["back view", "front view", "back view", "overhead view", "side view"],
        ["white", "black", "black", "white", "white"],
    )
    assert conditional.shape == (5, 3, 2)
    assert texts_of(conditional, prior) == [
        "a red mug, back view, white background",
        "a red mug, front view, black background",
        "a red mug, back view, black background",
        "a red mug, overhead view, white background",
        "a red mug, side view, white background",
    ]


def test_the_unconditional_text_is_empty_or_the_negative_prompt() -> None:
    for negative_prompt in ("", "blurry"):
        prior = NumberingPrior()
        conditions = PromptConditions(prior, "a red mug", negative_prompt=negative_prompt)
        unconditional = conditions.unconditional(2)
        assert unconditional.shape == (2, 3, 2)
        assert texts_of(unconditional, prior) == [negative_prompt, negative_prompt]


def test_texts_are_embedded_once() -> None:
    prior = NumberingPrior()
    conditions = PromptConditions(prior, "a red mug")
    for _ in range(3):
        conditions.conditional(["back view", "side view"], ["white", "white"])
        conditions.unconditional(4)
    assert (prior.calls, len(prior.texts)) == (1, 5)
