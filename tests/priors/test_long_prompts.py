"""A sentence that a text encoder cannot read to its end: the words of view and background stay, the sentence is cut."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from sdi_gs.contracts.prior_extras import ShorteningPrior
from sdi_gs.errors import UserError
from sdi_gs.guidance.prompts import PromptConditions
from sdi_gs.priors.latent_diffusion import LatentDiffusionPrior
from sdi_gs.priors.latent_diffusion_loading import load_latent_diffusion
from sdi_gs.settings.guidance import ViewPromptsConfig

LONG = " ".join(["a blue robot"] * 12)
"""About 84 tokens of the toy tokenizer, which spells all words but "blue"."""


@pytest.fixture(scope="module")
def prior(pristine_models: dict[str, Path]) -> LatentDiffusionPrior:
    return load_latent_diffusion(pristine_models["epsilon"], device="cpu", dtype=torch.float32)


def test_views_and_backgrounds_stay_apart_and_one_warning_quotes_what_is_cut(prior: LatentDiffusionPrior) -> None:
    assert isinstance(prior, ShorteningPrior)
    with pytest.warns(UserWarning, match="will not see") as warned:
        conditions = PromptConditions(prior, LONG, backgrounds=("white", "black"))
    assert len(warned) == 1
    [cut] = [str(warning.message).split("'")[1] for warning in warned]
    assert LONG.endswith(cut)
    front_white, back_white, front_black = (
        conditions.prompt_embeddings([view], [background])  # pyright: ignore[reportArgumentType]
        for view, background in (("front view", "white"), ("back view", "white"), ("front view", "black"))
    )
    assert not torch.equal(front_white, back_white)
    assert not torch.equal(front_white, front_black)
    # The same as if the sentence had been shorter.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        short = PromptConditions(prior, LONG.removesuffix(cut).rstrip(), backgrounds=("white", "black"))
    assert torch.equal(short.prompt_embeddings(["back view"], ["white"]), back_white)


@pytest.mark.parametrize("sentence", ["x" * 200, "y" * 150 + " robot", "a " + "z" * 200], ids=len)
def test_a_word_without_end_is_cut_within(prior: LatentDiffusionPrior, sentence: str) -> None:
    with pytest.warns(UserWarning, match="will not see"):
        kept = prior.shortened(sentence, [", front view, white background", ", back view, black background"])
    assert kept
    assert sentence.startswith(kept)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prior.embed_prompts([f"{kept}, front view, white background"])


def test_a_text_of_a_side_keeps_the_background(prior: LatentDiffusionPrior) -> None:
    own = ViewPromptsConfig(back=" ".join(["a grey back"] * 20))
    with pytest.warns(UserWarning, match="will not see") as warned:
        conditions = PromptConditions(prior, "a robot", backgrounds=("white", "black"), view_prompts=own)
    assert len(warned) == 1
    white, black = (conditions.prompt_embeddings(["back view"], [name]) for name in ("white", "black"))
    assert not torch.equal(white, black)


def test_what_fits_is_what_it_was(prior: LatentDiffusionPrior) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        conditions = PromptConditions(prior, "a robot", backgrounds=("white",))
    expected = prior.embed_prompts(["a robot, side view, white background"])
    assert torch.equal(conditions.prompt_embeddings(["side view"], ["white"]), expected)


def test_words_that_a_prior_does_not_know_are_refused_though_they_would_be_cut(prior: LatentDiffusionPrior) -> None:
    def refuse(text: str) -> None:
        if "dragon" in text:
            raise UserError("no dragons")

    from dataclasses import replace

    before, prior.config = prior.config, replace(prior.config, check_prompt=refuse)
    try:
        with pytest.raises(UserError, match="no dragons"):
            prior.shortened(f"{LONG} dragon", [", front view"])
    finally:
        prior.config = before
