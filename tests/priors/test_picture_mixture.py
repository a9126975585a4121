"""Mixtures around pictures in their own coordinates, against the formula over whole pictures in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sdi_gs.priors import picture_mixture
from sdi_gs.priors.ideal import IdealPrior
from sdi_gs.priors.picture_mixture import Mixture, joint_noise, mixture_noise, mixture_of_pictures
from sdi_gs.settings.backgrounds import BACKGROUND_COLOURS, BACKGROUND_NAMES
from sdi_gs.settings.priors import IdealPriorConfig

STD = 0.1
PALETTES = [
    torch.tensor([BACKGROUND_COLOURS["gray"]]),
    torch.tensor([BACKGROUND_COLOURS[name] for name in BACKGROUND_NAMES]),
]


@pytest.fixture(scope="module")
def prior() -> IdealPrior:
    return IdealPrior(IdealPriorConfig(image_size=32, renders_per_view=300, unconditional_renders=200))


def whole_pictures(foregrounds: list[tuple[Tensor, Tensor]], palette: Tensor) -> Tensor:
    """[M, D] in float64, from the definition: every picture over its background, in turn."""
    latents = [
        (foreground.double() + (1.0 - cover.double()) * palette[row % len(palette)].double()[:, None, None]) * 2.0 - 1.0
        for rgb, alpha in foregrounds
        for row, (foreground, cover) in enumerate(zip(rgb, alpha, strict=True))
    ]
    return torch.stack(latents).flatten(1)


def exact_noise(noised: Tensor, pictures: Tensor, log_weights: Tensor, level: float) -> Tensor:
    """The noise over whole pictures, in float64 and by distances."""
    variance = level * STD**2 + 1.0 - level
    distances = (noised.double()[:, None] - math.sqrt(level) * pictures).square().sum(dim=2)
    mean = torch.softmax(log_weights.double() - distances / (2.0 * variance), dim=1) @ pictures
    return math.sqrt(1.0 - level) / variance * (noised.double() - math.sqrt(level) * mean)


def some_noised(pictures: Tensor, level: float, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(int(1000 * level))
    clean = pictures[torch.randint(len(pictures), (count,), generator=generator)].float()
    noise = torch.randn(clean.shape, generator=generator)
    return math.sqrt(level) * clean + math.sqrt(1.0 - level) * noise


def foregrounds_of(prior: IdealPrior, sides: int) -> list[tuple[Tensor, Tensor]]:
    return [prior._rendered(("table", "red"), side) for side in ("front view", "back view")[:sides]]


def test_a_render_is_black_where_nothing_covers_it(prior: IdealPrior) -> None:
    for rgb, alpha in foregrounds_of(prior, 2):
        assert not rgb[(alpha == 0.0).expand_as(rgb)].any()
        assert 0.2 < (alpha == 0.0).float().mean() < 0.9


@pytest.mark.parametrize("palette", PALETTES, ids=["one background", "three backgrounds"])
@pytest.mark.parametrize("sides", [1, 2])
def test_a_mixture_holds_what_its_pictures_cover(prior: IdealPrior, palette: Tensor, sides: int) -> None:
    foregrounds = foregrounds_of(prior, sides)
    mixture, pictures = mixture_of_pictures(foregrounds, palette), whole_pictures(foregrounds, palette)
    torch.testing.assert_close(mixture.pictures().double(), pictures, atol=1e-6, rtol=0.0)
    covered = 3 * int(torch.stack([(alpha > 0).any(dim=0) for _, alpha in foregrounds]).any(dim=0).sum())
    assert mixture.centres.shape == (300 * sides, covered)
    assert covered < 0.8 * pictures.shape[1]
    torch.testing.assert_close(mixture.log_weights, torch.full((300 * sides,), -math.log(300)))


@pytest.mark.parametrize("timestep", [20, 50, 200, 350, 500, 700, 900])
@pytest.mark.parametrize("palette", PALETTES, ids=["one background", "three backgrounds"])
@pytest.mark.parametrize("worth_counting", [0, 2**40], ids=["few live centres", "all centres"])
def test_the_noise_is_exact_to_a_millionth(
    prior: IdealPrior, palette: Tensor, timestep: int, worth_counting: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture_mixture, "WORTH_COUNTING", worth_counting)
    foregrounds, level = foregrounds_of(prior, 2), prior.schedule.alpha_cumprod(timestep)
    mixture, pictures = mixture_of_pictures(foregrounds, palette), whole_pictures(foregrounds, palette)
    for count in (1, 4):
        noised = some_noised(pictures, level, count)
        before = noised.clone()
        noise = mixture_noise(noised, mixture, level, STD)
        exact = exact_noise(noised, pictures, mixture.log_weights, level)
        assert (noise - exact).norm() <= 1e-6 * exact.norm()
        assert torch.equal(noised, before)


def test_views_of_one_object_share_their_weights(prior: IdealPrior) -> None:
    (front, back), level = foregrounds_of(prior, 2), prior.schedule.alpha_cumprod(350)
    palettes = [palette[:1] for palette in PALETTES]
    mixtures = [mixture_of_pictures([side], palette) for side, palette in zip((front, back), palettes, strict=True)]
    pictures = [whole_pictures([side], palette) for side, palette in zip((front, back), palettes, strict=True)]
    noised = torch.stack([some_noised(whole, level, 1)[0] for whole in pictures])
    stacked = torch.cat(pictures, dim=1)
    exact = exact_noise(noised.reshape(1, -1), stacked, mixtures[0].log_weights, level).view(2, -1)
    noise = joint_noise(noised, mixtures, level, STD)
    assert (noise - exact).norm() <= 1e-6 * exact.norm()


def test_centres_without_a_weight_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_mixture, "WORTH_COUNTING", 0)
    centres = torch.full((40, 6), 9.0)
    centres[7] = 0.0
    mixture = Mixture(centres=centres, log_weights=torch.zeros(40), half_norms=0.5 * centres.square().sum(dim=1))
    expected = mixture_noise(torch.zeros(2, 6), mixture, 0.99, STD)
    read: list[int] = []
    original = Tensor.__matmul__

    def recording(left: Tensor, right: Tensor) -> Tensor:
        read.append(len(right))
        return original(left, right)

    monkeypatch.setattr(Tensor, "__matmul__", recording)
    noise = mixture_noise(torch.zeros(2, 6), mixture, 0.99, STD)
    assert read == [1]
    assert torch.equal(noise, expected)
