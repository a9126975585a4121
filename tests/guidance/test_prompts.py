"""View-dependent embeddings: made once, handed out by view."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch, orbit_cameras
from sdi_gs.contracts import NoiseSchedule
from sdi_gs.errors import UserError
from sdi_gs.guidance.prompts import PromptConditions
from sdi_gs.priors.noise_schedules import scaled_linear_schedule
from sdi_gs.settings.guidance import ViewPromptsConfig


class NumberingPrior:
    """Embeds a text as the order in which it was first seen."""

    name = "numbering"
    image_size = 8
    schedule: NoiseSchedule = scaled_linear_schedule()

    def __init__(self, *, knows_cameras: bool = False) -> None:
        self.knows_cameras = knows_cameras
        self.texts: list[str] = []
        self.calls = 0

    def embed_prompts(self, prompts: Sequence[str]) -> Tensor:
        self.calls += 1
        self.texts.extend(prompts)
        return torch.arange(len(prompts), dtype=torch.float64)[:, None, None].expand(-1, 3, 2)

    def encode_images(self, images: Tensor, generator: torch.Generator) -> Tensor:
        raise NotImplementedError

    def decode_latents(self, latents: Tensor) -> Tensor:
        raise NotImplementedError

    def predict_noise(
        self, noised_latents: Tensor, timestep: int, embeddings: Tensor, cameras: CameraBatch | None = None
    ) -> Tensor:
        raise NotImplementedError


def texts_of(embeddings: Tensor, prior: NumberingPrior) -> list[str]:
    return [prior.texts[int(row[0, 0])] for row in embeddings]


def test_views_get_the_prompt_with_their_word_and_background() -> None:
    prior = NumberingPrior()
    conditions = PromptConditions(prior, "a red mug", backgrounds=("white", "black"))
    embeddings = conditions.prompt_embeddings(
        ["back view", "front view", "back view", "overhead view", "side view"],
        ["white", "black", "black", "white", "white"],
    )
    assert embeddings.shape == (5, 3, 2)
    assert texts_of(embeddings, prior) == [
        "a red mug, back view, white background",
        "a red mug, front view, black background",
        "a red mug, back view, black background",
        "a red mug, overhead view, white background",
        "a red mug, side view, white background",
    ]


def test_the_negative_prompt_is_empty_by_default() -> None:
    for negative_prompt in ("", "blurry"):
        prior = NumberingPrior()
        conditions = PromptConditions(prior, "a red mug", negative_prompt=negative_prompt)
        embeddings = conditions.negative_embeddings(2)
        assert embeddings.shape == (2, 3, 2)
        assert texts_of(embeddings, prior) == [negative_prompt, negative_prompt]


def test_texts_are_embedded_once() -> None:
    prior = NumberingPrior()
    conditions = PromptConditions(prior, "a red mug")
    for _ in range(3):
        conditions.prompt_embeddings(["back view", "side view"], ["white", "white"])
        conditions.negative_embeddings(4)
        conditions.for_cameras(looking_from(30.0, 170.0), ["white", "white"], perp_neg=True)
    assert (prior.calls, len(prior.texts)) == (1, 5)


def looking_from(*azimuths: float, elevation: float = 0.0) -> CameraBatch:
    ones = torch.ones(len(azimuths), dtype=torch.float64)
    angles = torch.tensor(azimuths, dtype=torch.float64)
    return orbit_cameras(angles, elevation * ones, 3.0 * ones, 40.0 * ones, width=8, height=8)


def test_without_perp_neg_a_camera_gets_its_nearest_word_and_no_negatives() -> None:
    prior = NumberingPrior()
    conditions = PromptConditions(prior, "a red mug", backgrounds=("white", "black"))
    batch = conditions.for_cameras(looking_from(40.0, 200.0), ["black", "white"], perp_neg=False)
    assert batch.perp_neg is None
    expected = ["a red mug, front view, black background", "a red mug, back view, white background"]
    assert texts_of(batch.prompt_embeddings, prior) == expected
    assert torch.equal(batch.negative_embeddings, conditions.negative_embeddings(2))


def test_with_perp_neg_words_are_blended_by_angle_and_every_camera_has_its_own_negatives() -> None:
    prior = NumberingPrior()
    conditions = PromptConditions(prior, "a red mug", backgrounds=("white", "black"))
    # Embeddings are the order of the texts: front 0 and 1, side 2 and 3, back 4 and 5, overhead 6 and 7.
    batch = conditions.for_cameras(looking_from(22.5, 162.0), ["black", "white"], perp_neg=True)
    torch.testing.assert_close(
        batch.prompt_embeddings[:, 0, 0], torch.tensor([0.75 * 1 + 0.25 * 3, 0.2 * 2 + 0.8 * 4], dtype=torch.float64)
    )
    assert batch.perp_neg is not None
    assert batch.perp_neg.embeddings.shape == (2, 2, 3, 2)
    assert texts_of(batch.perp_neg.embeddings[0], prior) == [
        "a red mug, front view, black background",
        "a red mug, side view, black background",
    ]
    assert texts_of(batch.perp_neg.embeddings[1], prior) == [
        "a red mug, side view, white background",
        "a red mug, front view, white background",
    ]
    assert batch.perp_neg.weights.shape == (2, 2)
    # -(e^(-r/2) - 0.606) and -(e^(-r/2) + 0.967) with r = 0.2.
    assert batch.perp_neg.weights[1].tolist() == pytest.approx([-0.298837, -1.871837], abs=1e-6)


def test_a_view_from_above_is_not_blended() -> None:
    prior = NumberingPrior()
    conditions = PromptConditions(prior, "a red mug")
    batch = conditions.for_cameras(looking_from(22.5, elevation=70.0), ["white"], perp_neg=True)
    assert texts_of(batch.prompt_embeddings, prior) == ["a red mug, overhead view, white background"]
    assert batch.perp_neg is not None
    assert batch.perp_neg.weights.tolist() == [[0.0, 0.0]]


def test_a_side_can_have_a_text_of_its_own() -> None:
    prior = NumberingPrior()
    overrides = ViewPromptsConfig(back="the plain back of a mug", overhead="coffee")
    conditions = PromptConditions(prior, "a red mug", view_prompts=overrides)
    embeddings = conditions.prompt_embeddings(["front view", "back view", "overhead view"], ["white", "white", "white"])
    assert texts_of(embeddings, prior) == [
        "a red mug, front view, white background",
        "the plain back of a mug, white background",
        "coffee, white background",
    ]


def test_with_cameras_the_prompt_names_no_view_and_the_cameras_are_handed_on() -> None:
    prior, cameras = NumberingPrior(knows_cameras=True), looking_from(40.0, 200.0, elevation=70.0)
    conditions = PromptConditions(prior, "a red mug", backgrounds=("white", "black"), views="cameras")
    batch = conditions.for_cameras(cameras, ["black", "white"], perp_neg=False)
    assert texts_of(batch.prompt_embeddings, prior) == ["a red mug, black background", "a red mug, white background"]
    assert texts_of(batch.negative_embeddings, prior) == ["", ""]
    assert prior.texts == ["a red mug, white background", "a red mug, black background", ""]
    assert batch.cameras is cameras
    with pytest.raises(ValueError, match="Perp-Neg blends view words"):
        conditions.for_cameras(cameras, ["black", "white"], perp_neg=True)


def test_with_words_no_cameras_are_handed_on() -> None:
    conditions = PromptConditions(NumberingPrior(knows_cameras=True), "a red mug")
    for perp_neg in (False, True):
        assert conditions.for_cameras(looking_from(40.0), ["white"], perp_neg=perp_neg).cameras is None


def test_a_prior_without_cameras_and_a_view_beside_the_camera_are_refused() -> None:
    with pytest.raises(UserError, match="^guidance.views cameras needs .* and numbering knows view words only: use "):
        PromptConditions(NumberingPrior(), "a red mug", views="cameras")
    with pytest.raises(UserError, match='^"a red mug, Back view" names the back view, but .*: leave the view out'):
        PromptConditions(NumberingPrior(knows_cameras=True), "a red mug, Back view", views="cameras")


def test_without_the_backgrounds_word_every_text_is_embedded_once() -> None:
    prior = NumberingPrior()
    conditions = PromptConditions(prior, "a red mug", backgrounds=("white", "random"), name_background=False)
    assert prior.texts == [
        f"a red mug, {view}" for view in ("front view", "side view", "back view", "overhead view")
    ] + [""]
    batch = conditions.for_cameras(looking_from(0.0, 180.0), ["white", "random"], perp_neg=True)
    assert texts_of(batch.prompt_embeddings, prior) == ["a red mug, front view", "a red mug, back view"]


def test_a_background_of_a_drawn_colour_is_never_named() -> None:
    prior = NumberingPrior()
    conditions = PromptConditions(prior, "a red mug", backgrounds=("black", "random"))
    embeddings = conditions.prompt_embeddings(["front view", "front view"], ["black", "random"])
    assert texts_of(embeddings, prior) == ["a red mug, front view, black background", "a red mug, front view"]
