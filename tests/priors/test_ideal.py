"""The closed-form prior against the score of its mixture by autograd, and what its mixtures consist of."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sdi_gs.cameras import VIEW_WORDS, ViewWord
from sdi_gs.errors import UserError
from sdi_gs.priors import ideal, ideal_worlds
from sdi_gs.priors.ideal import IdealPrior
from sdi_gs.priors.picture_mixture import Mixture, mixture_noise
from sdi_gs.settings.backgrounds import BACKGROUND_COLOURS, BACKGROUND_NAMES, BackgroundName
from sdi_gs.settings.priors import IdealPriorConfig
from sdi_gs.toybox.classes import CLASSES, COLOURS

SMALL = IdealPriorConfig(image_size=16, renders_per_view=12, unconditional_renders=40)
STD = SMALL.component_std
LEVELS = (0.999, 0.7, 0.3, 0.005)


@pytest.fixture(scope="module")
def prior() -> IdealPrior:
    return IdealPrior(SMALL)


def random_mixture(dtype: torch.dtype = torch.float64) -> Mixture:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    log_weights = torch.log_softmax(torch.randn(7, generator=generator, dtype=torch.float64), dim=0)
    half_norms = 0.5 * centres.square().sum(dim=1)
    return Mixture(centres=centres.to(dtype), log_weights=log_weights.to(dtype), half_norms=half_norms.to(dtype))


def log_density(points: Tensor, mixture: Mixture, level: float) -> Tensor:
    """log sum_j p_j N(x; sqrt(a) c_j, a s^2 + 1 - a) up to a constant, [B], in float64 and from the definition."""
    variance = level * STD**2 + 1.0 - level
    distances = torch.cdist(
        points, math.sqrt(level) * mixture.pictures().double(), compute_mode="donot_use_mm_for_euclid_dist"
    )
    return torch.logsumexp(mixture.log_weights.double() - distances.square() / (2.0 * variance), dim=1)


def noise_by_score(points: Tensor, mixture: Mixture, level: float) -> Tensor:
    """-sqrt(1 - a) grad log p, by autograd (Tweedie)."""
    points = points.detach().double().requires_grad_()
    (score,) = torch.autograd.grad(log_density(points, mixture, level).sum(), points)
    return -math.sqrt(1.0 - level) * score


def some_latents(count: int = 3, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("level", LEVELS)
def test_the_noise_is_the_score_of_the_mixture(level: float) -> None:
    mixture = random_mixture()
    points = 1.5 * torch.randn(20, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    noise = mixture_noise(points, mixture, level, STD)
    torch.testing.assert_close(noise, noise_by_score(points, mixture, level), atol=1e-11, rtol=1e-11)


def test_one_centre_gives_the_gaussians_closed_form() -> None:
    centre = torch.tensor([[0.4, -1.0]], dtype=torch.float64)
    mixture = Mixture(centres=centre, log_weights=torch.zeros(1).double(), half_norms=torch.tensor([0.58]).double())
    point, level = torch.tensor([[2.0, 0.5]], dtype=torch.float64), 0.4
    sigma = math.sqrt((1.0 - level) / level)
    expected = sigma * (point / math.sqrt(level) - centre) / (STD**2 + sigma**2)
    torch.testing.assert_close(mixture_noise(point, mixture, level, STD), expected)


@pytest.mark.parametrize("timestep", [-99, 1, 250, 900])
@pytest.mark.parametrize("prompt", ["a red ball, front view", "a chair, side view, black background", ""])
def test_the_prior_answers_with_the_score_of_its_renders(prior: IdealPrior, prompt: str, timestep: int) -> None:
    embedding = prior.embed_prompts([prompt]).expand(3, -1, -1)
    mixture = prior._mixture_of(embedding[0, 0])
    level = prior.schedule.alpha_cumprod(timestep)
    clean = mixture.pictures()[:3].view(3, 3, 8, 8)
    latents = math.sqrt(level) * clean + math.sqrt(1.0 - level) * some_latents()
    noise = prior.predict_noise(latents, timestep, embedding)
    assert noise.dtype == torch.float32
    expected = noise_by_score(latents.flatten(1), mixture, level).view(3, 3, 8, 8)
    torch.testing.assert_close(noise.double(), expected, atol=2e-4, rtol=1e-3)


def test_rows_of_a_batch_answer_their_own_prompts(prior: IdealPrior) -> None:
    prompts = ["a red ball, front view", "", "a blue robot, back view", "a red ball, front view"]
    latents, embeddings = some_latents(4), prior.embed_prompts(prompts)
    together = prior.predict_noise(latents, 300, embeddings)
    apart = [prior.predict_noise(latents[row : row + 1], 300, embeddings[row : row + 1]) for row in range(4)]
    torch.testing.assert_close(together, torch.cat(apart), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_mixed_view_weights_are_a_mixture_of_the_views(prior: IdealPrior, share: float) -> None:
    timestep, latents = 600, some_latents()
    front, back = prior.embed_prompts(["a red chair, front view", "a red chair, back view"])
    level = prior.schedule.alpha_cumprod(timestep)
    noises, log_densities = [], []
    for embedding, weight in ((front, share), (back, 1.0 - share)):
        noises.append(prior.predict_noise(latents, timestep, embedding.expand(3, 1, -1)))
        mixture = prior._mixture_of(embedding[0])
        log_densities.append(math.log(weight) + log_density(latents.flatten(1).double(), mixture, level))
    responsibilities = torch.softmax(torch.stack(log_densities), dim=0).float()
    expected = (responsibilities[:, :, None, None, None] * torch.stack(noises)).sum(dim=0)
    blended = (share * front + (1.0 - share) * back).expand(3, 1, -1)
    noise = prior.predict_noise(latents, timestep, blended)
    torch.testing.assert_close(noise, expected, atol=1e-4, rtol=1e-3)
    assert not torch.allclose(noises[0], noises[1], atol=1e-3)


@pytest.mark.parametrize(
    ("prompt", "dropped", "front_share", "weights"),
    [
        ("a red chair, back view", 0.6, 0.25, (0.15, 0.3, 0.55)),
        ("a red chair, back view", 0.6, 0.7, (0.42, 0.12, 0.46)),
        ("a red chair, front view", 0.5, 1.0, (1.0, 0.0, 0.0)),
        ("a red chair, side view", 1.0, 0.4, (0.4, 0.4, 0.2)),
        # What names no view is seen as often as in photographs.
        ("a red chair", 0.0, 0.7, (0.7, 0.2, 0.1)),
        ("", 0.0, 0.7, (0.7, 0.2, 0.1)),
    ],
)
def test_forgotten_words_leave_the_sides_that_pictures_show(
    prompt: str, dropped: float, front_share: float, weights: tuple[float, ...]
) -> None:
    weak = IdealPrior(replace(SMALL, view_words_dropped=dropped, front_share=front_share))
    exact = IdealPrior(SMALL)
    timestep, latents = 700, some_latents()
    level = weak.schedule.alpha_cumprod(timestep)
    named = prompt.partition(",")[0]
    embeddings = exact.embed_prompts([f"a red chair, {word}" for word in VIEW_WORDS[:3]])
    if not named:
        embeddings = embeddings - exact.embed_prompts(["a red chair"])
    noises, log_densities = [], []
    for embedding, weight in zip(embeddings, weights, strict=True):
        noises.append(exact.predict_noise(latents, timestep, embedding.expand(3, 1, -1)))
        density = log_density(latents.flatten(1).double(), exact._mixture_of(embedding[0]), level)
        log_densities.append(math.log(weight) + density if weight else torch.full_like(density, -math.inf))
    responsibilities = torch.softmax(torch.stack(log_densities), dim=0).float()
    expected = (responsibilities[:, :, None, None, None] * torch.stack(noises)).sum(dim=0)
    noise = weak.predict_noise(latents, timestep, weak.embed_prompts([prompt]).expand(3, 1, -1))
    torch.testing.assert_close(noise, expected, atol=1e-4, rtol=1e-3)


def test_as_many_fronts_as_there_are_sides_change_nothing_without_a_word() -> None:
    config = replace(SMALL, view_words_dropped=0.5)
    weak, exact, latents = IdealPrior(config), IdealPrior(SMALL), some_latents()
    for prompt in ("", "a red chair"):
        embeddings = exact.embed_prompts([prompt]).expand(3, 1, -1)
        assert torch.equal(*(one.predict_noise(latents, 300, embeddings) for one in (weak, exact)))


def test_the_empty_prompt_is_all_zeros_and_stands_for_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[str, str]] = []
    original = ideal_worlds.sample_object

    def recording(class_name: Any, colour: str, rng: Any) -> Any:
        drawn.append((class_name, colour))
        return original(class_name, colour, rng)

    monkeypatch.setattr(ideal_worlds, "sample_object", recording)
    prior = IdealPrior(IdealPriorConfig(image_size=8, unconditional_renders=240))
    embedding = prior.embed_prompts([""])
    assert not embedding.any()
    mixture = prior._mixture_of(embedding[0, 0])
    pictures = mixture.pictures()
    assert pictures.shape == (240, 48)
    assert {name for name, _ in drawn} == set(CLASSES)
    assert {colour for _, colour in drawn} == set(COLOURS)
    torch.testing.assert_close(mixture.log_weights.exp().sum(), torch.tensor(1.0))
    # A corner of the image is background: every one is there, in equal shares.
    corners = pictures.view(240, 3, 4, 4)[:, 0, 0, 0]
    shares = [(corners - shade).abs().lt(0.02).float().mean().item() for shade in (1.0, 0.0, -1.0)]
    assert shares == pytest.approx([1.0 / 3.0] * 3, abs=0.08)


@pytest.mark.parametrize("view", VIEW_WORDS)
def test_a_view_word_means_cameras_that_bear_it(view: ViewWord, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    original = ideal.render_scenes

    def recording(scenes: Any, cameras: Any, **options: Any) -> Any:
        seen.append(cameras)
        return original(scenes, cameras, **options)

    monkeypatch.setattr(ideal, "render_scenes", recording)
    prior = IdealPrior(SMALL)
    prior.predict_noise(some_latents(1), 300, prior.embed_prompts([f"a red mug, {view}"]))
    (cameras,) = seen
    assert cameras.view_words() == [view] * SMALL.renders_per_view
    low, high = (60.0, 85.0) if view == "overhead view" else SMALL.elevation_deg
    assert low <= cameras.elevation_deg.min() < cameras.elevation_deg.max() <= high
    if view == "side view":
        assert (cameras.azimuth_deg < 180.0).sum() == SMALL.renders_per_view // 2


@pytest.mark.parametrize("background", BACKGROUND_NAMES)
def test_a_background_is_what_surrounds_the_object(prior: IdealPrior, background: BackgroundName) -> None:
    embedding = prior.embed_prompts([f"a red ball, front view, {background} background"])[0, 0]
    corners = prior._mixture_of(embedding).pictures().view(-1, 3, 8, 8)[:, :, 0, 0]
    expected = 2.0 * torch.tensor(BACKGROUND_COLOURS[background]) - 1.0
    torch.testing.assert_close(corners, expected.expand_as(corners), atol=1e-4, rtol=0.0)


def test_a_colour_shows_in_the_denoised_latent(prior: IdealPrior) -> None:
    timestep, latents = 950, some_latents(1)
    level = prior.schedule.alpha_cumprod(timestep)
    redness = []
    for colour in ("red", "blue"):
        noise = prior.predict_noise(latents, timestep, prior.embed_prompts([f"a {colour} ball, front view"]))
        clean = (latents - math.sqrt(1.0 - level) * noise) / math.sqrt(level)
        centre = clean[0, :, 3:5, 3:5].mean(dim=(1, 2))
        redness.append((centre[0] - centre[2]).item())
    assert redness[0] > 0.3
    assert redness[1] < -0.3


def test_the_same_seed_gives_the_same_renders_in_any_order() -> None:
    prompts = ["a red ball, front view", "a blue robot, back view"]
    latents = some_latents(1)

    def answers(order: list[str], seed: int = 0) -> dict[str, Tensor]:
        config = IdealPriorConfig(image_size=16, renders_per_view=4, seed=seed)
        prior = IdealPrior(config)
        return {text: prior.predict_noise(latents, 300, prior.embed_prompts([text])) for text in order}

    forth, back, other = answers(prompts), answers(prompts[::-1]), answers(prompts, seed=1)
    assert all(torch.equal(forth[text], back[text]) for text in prompts)
    assert not any(torch.equal(forth[text], other[text]) for text in prompts)


def test_latents_are_block_means_of_pixels_and_carry_gradients(prior: IdealPrior) -> None:
    images = torch.rand(2, 16, 16, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    latents = prior.encode_images(images)
    blocks = images.detach().view(2, 8, 2, 8, 2, 3).mean(dim=(2, 4)).permute(0, 3, 1, 2)
    torch.testing.assert_close(latents, 2.0 * blocks - 1.0)
    (gradient,) = torch.autograd.grad(latents.sum(), images)
    torch.testing.assert_close(gradient, torch.full_like(gradient, 0.5))


def test_decoding_repeats_pixels_and_keeps_to_the_range(prior: IdealPrior) -> None:
    latents = torch.tensor([-1.0, 0.0, 1.0, 3.0]).view(1, 1, 2, 2).expand(1, 3, 2, 2).clone().requires_grad_()
    images = prior.decode_latents(latents)
    assert images.shape == (1, 4, 4, 3)
    assert not images.requires_grad
    rows = [[0.0, 0.0, 0.5, 0.5]] * 2 + [[1.0] * 4] * 2
    assert torch.equal(images[0, :, :, 0], torch.tensor(rows))


def test_the_prior_sees_no_gradient(prior: IdealPrior) -> None:
    latents = some_latents(1).requires_grad_()
    assert not prior.predict_noise(latents, 300, prior.embed_prompts(["a red ball"])).requires_grad


def test_an_unknown_word_is_named(prior: IdealPrior) -> None:
    with pytest.raises(UserError, match="unicorn"):
        prior.embed_prompts(["a red ball", "a red unicorn, front view"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"image_size": 33, "pool": 2},
        {"component_std": 0.0},
        {"renders_per_view": 0},
        {"unconditional_renders": 0},
    ],
)
def test_a_config_without_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))} must be"):
        IdealPriorConfig(**wrong)
