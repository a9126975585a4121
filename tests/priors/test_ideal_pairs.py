"""The closed-form prior of two objects: what its mixtures consist of, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from sdi_gs.configs.presets import preset
from sdi_gs.errors import UserError
from sdi_gs.priors import ideal
from sdi_gs.priors.catalog import load_prior, loader_settings, require_known_prompt
from sdi_gs.priors.ideal import IdealPrior
from sdi_gs.priors.ideal_worlds import PAIRS
from sdi_gs.settings.priors import IdealPriorConfig
from sdi_gs.toybox.objects import Scene
from sdi_gs.toybox.pairs import CARRIERS
from sdi_gs.toybox.views import toybox_cameras

SMALL = IdealPriorConfig(image_size=16, renders_per_view=24, unconditional_renders=300)
PROMPT = "a red ball on a blue cube"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Scene]:
    """Every scene that is rendered from now on."""
    scenes: list[Scene] = []
    original = ideal.render_scenes

    def recording(made: Any, cameras: Any, **options: Any) -> Any:
        scenes.extend(made)
        return original(made, cameras, **options)

    monkeypatch.setattr(ideal, "render_scenes", recording)
    return scenes


def described(scene: Scene) -> tuple[tuple[str, str], ...]:
    return tuple((item.class_name, item.colour) for item in scene)


def test_the_noise_is_the_score_of_renders_of_the_two_objects(drawn: list[Scene]) -> None:
    prior = IdealPrior(SMALL, world=PAIRS)
    embedding = prior.embed_prompts([f"{PROMPT}, front view, white background"])
    latents = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    noise = prior.predict_noise(latents, 400, embedding.expand(2, -1, -1))
    assert len(drawn) == SMALL.renders_per_view
    assert {described(scene) for scene in drawn} == {(("ball", "red"), ("cube", "blue"))}
    assert all(upper.position[2] > lower.position[2] + 0.2 for upper, lower in drawn)
    # From the definition, in float64: minus the gradient of the log density of the mixture, by autograd.
    level = prior.schedule.alpha_cumprod(400)
    variance = level * SMALL.component_std**2 + 1.0 - level
    centres = prior._mixture_of(embedding[0, 0]).pictures().double()
    points = latents.flatten(1).double().requires_grad_()
    squares = (points[:, None] - math.sqrt(level) * centres).square().sum(dim=2)
    (score,) = torch.autograd.grad(torch.logsumexp(-squares / (2.0 * variance), dim=1).sum(), points)
    expected = (-math.sqrt(1.0 - level) * score).view(2, 3, 8, 8)
    torch.testing.assert_close(noise.double(), expected, atol=2e-4, rtol=1e-3)


def test_the_empty_text_is_every_pair_and_no_object_alone(drawn: list[Scene]) -> None:
    prior = IdealPrior(SMALL, world=PAIRS)
    embedding = prior.embed_prompts([""])
    assert not embedding.any()
    prior.predict_noise(torch.zeros(1, 3, 8, 8), 400, embedding)
    assert len(drawn) == SMALL.unconditional_renders
    assert {len(scene) for scene in drawn} == {2}
    assert len({described(scene)[0][0] for scene in drawn}) == len({described(scene)[1][1] for scene in drawn}) + 6
    assert any(first.position[0] > second.position[0] + 0.5 for first, second in drawn)
    assert any(
        first.position[2] > second.position[2] + 0.3 and second.class_name in CARRIERS for first, second in drawn
    )


def test_open_colours_and_one_object_have_their_own_scenes(drawn: list[Scene]) -> None:
    prior = IdealPrior(SMALL, world=PAIRS)
    for text, count in (("a ball next to a blue cube", 2), ("a red ball", 1)):
        drawn.clear()
        prior.predict_noise(torch.zeros(1, 3, 8, 8), 400, prior.embed_prompts([f"{text}, side view"]))
        assert {len(scene) for scene in drawn} == {count}
        assert (len({scene[0].colour for scene in drawn}) > 3) == (count == 2)


def test_words_of_both_objects_and_the_relation_reach_the_embedding() -> None:
    prior = IdealPrior(SMALL, world=PAIRS)
    texts = [
        PROMPT,
        "a blue ball on a red cube",
        "a red cube on a blue cube",
        "a red ball next to a blue cube",
        "a red ball in front of a blue cube",
        "a red ball behind a blue cube",
        "a red ball on a blue table",
        "a red ball",
    ]
    embeddings = prior.embed_prompts(texts)[:, 0]
    assert len(torch.unique(embeddings, dim=0)) == len(texts)
    contents = [PAIRS.properties_of(row)[0] for row in embeddings]
    assert contents[0] == ("ball", "red", "on", "cube", "blue")
    assert contents[5] == ("ball", "red", "behind", "cube", "blue")
    assert contents[7] == ("ball", "red", None, None, None)


def test_the_runs_own_prompt_decides_on_the_world() -> None:
    config = replace(preset("toybox-ideal", prompt=PROMPT), ideal_prior=SMALL)
    assert isinstance(load_prior(config), IdealPrior)
    alone = replace(config, prompt="a blue robot")
    assert loader_settings(config) != loader_settings(alone)
    assert loader_settings(config) == loader_settings(replace(config, prompt="a mug behind a house"))
    prior = load_prior(alone)
    with pytest.raises(UserError, match="names two objects.*in a run whose own prompt names two"):
        prior.embed_prompts([PROMPT])
    styled = load_prior(replace(alone, prompt="a striped blue robot"))
    with pytest.raises(UserError, match="names two objects"):
        styled.embed_prompts([PROMPT])
    forget = load_prior(config)
    assert isinstance(forget, IdealPrior)
    forget.predict_noise(torch.zeros(2, 3, 8, 8), 400, forget.embed_prompts([f"{PROMPT}, front view", ""]))
    forget.forget_prompts()
    assert set(forget._renders) == {(None,) * 6}


def test_the_trained_network_refuses_two_objects_without_being_loaded() -> None:
    config = preset("toybox", prompt=PROMPT)
    with pytest.raises(UserError, match="names two objects, which only the exact prior knows.*--prior toybox-ideal"):
        require_known_prompt(config)
    require_known_prompt(preset("toybox-ideal", prompt=PROMPT))


def test_cameras_take_the_place_of_view_words_for_two_objects() -> None:
    config = IdealPriorConfig(image_size=16, renders_per_window=8)
    prior = IdealPrior(config, world=PAIRS)
    cameras = toybox_cameras(torch.tensor([0.0, 180.0]), torch.tensor([15.0, 15.0]), size=16)
    front, back = prior.predict_noise(
        torch.zeros(2, 3, 8, 8), 400, prior.embed_prompts([PROMPT.replace("on", "in front of")] * 2), cameras
    )
    assert not torch.allclose(front, back, atol=1e-2)
