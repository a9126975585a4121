"""Perp-Neg: published weights by hand, projections by definition."""

from __future__ import annotations

import pytest
import torch
from latents_only import LatentsOnlyPrior
from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.guidance.guided_predictor import GuidedPredictor
from sdi_gs.guidance.perp_neg import PerpNegBranches, combine_branches, perpendicular, view_blend
from sdi_gs.guidance.prompts import Conditions


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class ProjectingPrior(LatentsOnlyPrior):
    """Answers with the latents times a number per channel that the embedding holds, and counts its rows."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def predict_noise(
        self, noised_latents: Tensor, timestep: int, embeddings: Tensor, cameras: CameraBatch | None = None
    ) -> Tensor:
        self.rows.append(len(noised_latents))
        return noised_latents * embeddings[:, 0, :, None, None]


# 4 e^(-r/2) - 2.426 before the object; e^(-r/2) - 0.606 and e^(-r/2) + 0.967 behind it. e^(-1/2) = 0.606531 and
# e^(-1/4) = 0.778801.
BLENDS = [
    (0.0, 10.0, {"front view": 1.0, "side view": 0.0}, {"front view": -0.000123, "side view": -1.574}),
    (45.0, 0.0, {"front view": 0.5, "side view": 0.5}, {"front view": -0.689203, "side view": -0.689203}),
    (-45.0, 0.0, {"front view": 0.5, "side view": 0.5}, {"front view": -0.689203, "side view": -0.689203}),
    (315.0, 0.0, {"front view": 0.5, "side view": 0.5}, {"front view": -0.689203, "side view": -0.689203}),
    (90.0, 0.0, {"side view": 1.0, "back view": 0.0}, {"side view": -0.000531, "front view": -1.573531}),
    (135.0, 60.0, {"side view": 0.5, "back view": 0.5}, {"side view": -0.172801, "front view": -1.745801}),
    (225.0, 0.0, {"side view": 0.5, "back view": 0.5}, {"side view": -0.172801, "front view": -1.745801}),
    (180.0, -10.0, {"side view": 0.0, "back view": 1.0}, {"side view": -0.394, "front view": -1.967}),
]


@pytest.mark.parametrize(("azimuth", "elevation", "positive", "negative"), BLENDS)
def test_blends_and_weights_are_the_published_ones(
    azimuth: float, elevation: float, positive: dict[str, float], negative: dict[str, float]
) -> None:
    blend = view_blend(azimuth, elevation)
    assert dict(blend.positive) == pytest.approx(positive)
    assert dict(blend.negative) == pytest.approx(negative, abs=2e-6)


def test_from_above_nothing_is_pushed_away() -> None:
    blend = view_blend(30.0, 61.0)
    assert blend.positive == (("overhead view", 1.0),)
    assert [weight for _, weight in blend.negative] == [0.0, 0.0]


def test_weights_never_attract() -> None:
    for azimuth in range(-180, 180):
        blend = view_blend(float(azimuth), 0.0)
        assert all(weight < 0.0 for _, weight in blend.negative)
        assert sum(share for _, share in blend.positive) == pytest.approx(1.0)


def test_what_is_perpendicular_has_no_part_along_the_direction_and_the_rest_does() -> None:
    vector, direction = normal(2, 3, 4, 5, 5)
    away = perpendicular(vector, direction)
    inner = (away * direction).sum(dim=(1, 2, 3))
    torch.testing.assert_close(inner, torch.zeros_like(inner), atol=1e-11, rtol=0.0)
    # The removed part is a multiple of the direction, one for each image.
    factors = (vector - away) / direction
    torch.testing.assert_close(factors, factors[:, :1, :1, :1].expand_as(factors))
    assert factors[:, 0, 0, 0].unique().numel() == 3


def test_a_direction_of_no_length_takes_nothing_away() -> None:
    vector = normal(1, 4, 5, 5)
    assert torch.equal(perpendicular(vector, torch.zeros_like(vector)), vector)


def test_negatives_without_weight_leave_classifier_free_guidance() -> None:
    branches = normal(4, 2, 4, 5, 5)
    conditional, unconditional, *_ = branches
    combined = combine_branches(branches, torch.zeros(2, 2), 7.5)
    torch.testing.assert_close(combined, unconditional + 7.5 * (conditional - unconditional))


def test_along_the_prompt_perp_neg_is_classifier_free_guidance() -> None:
    branches = normal(4, 2, 4, 5, 5)
    conditional, unconditional, first, _ = branches
    weights = torch.tensor([[-1.0, -0.3], [-0.2, -2.0]], dtype=torch.float64)
    towards = conditional - unconditional
    moved = combine_branches(branches, weights, 3.0) - unconditional
    along = (moved * towards).sum(dim=(1, 2, 3)) / towards.square().sum(dim=(1, 2, 3))
    torch.testing.assert_close(along, torch.full((2,), 3.0, dtype=torch.float64))
    # And off it, away from what is to be avoided.
    off = ((moved - 3.0 * towards) * perpendicular(first - unconditional, towards)).sum(dim=(1, 2, 3))
    assert off[0] < 0.0


@pytest.mark.parametrize(("scale", "rows"), [(7.5, 12), (-7.5, 12), (1.0, 12), (0.0, 3)])
def test_four_branches_ride_in_one_call_and_each_image_meets_its_own(scale: float, rows: int) -> None:
    """threestudio #456 pairs negatives with the latents of other images."""
    prior, latents, embeddings = ProjectingPrior(), normal(3, 4, 5, 5), normal(3, 4, 1, 4, seed=1)
    weights = -normal(3, 2, seed=2).abs()
    conditions = Conditions(
        prompt_embeddings=embeddings[:, 0],
        negative_embeddings=embeddings[:, 1],
        perp_neg=PerpNegBranches(embeddings=embeddings[:, 2:], weights=weights),
    )
    together = GuidedPredictor(prior, conditions)(latents, 300, scale)
    assert prior.rows == [rows]
    for index in range(3):
        own = latents[index].flatten()
        conditional, unconditional, *others = (
            (latents[index] * embeddings[index, branch, 0, :, None, None]).flatten() for branch in range(4)
        )
        towards = conditional - unconditional
        expected = towards.clone()
        for weight, other in zip(weights[index], others, strict=True):
            away = other - unconditional
            expected += weight * (away - (away @ towards) / (towards @ towards) * towards)
        expected = unconditional + scale * expected
        assert own.shape == expected.shape
        torch.testing.assert_close(together[index].flatten(), expected, atol=1e-10, rtol=0.0)
