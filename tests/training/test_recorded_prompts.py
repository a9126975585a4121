"""What the text encoder is given, recorded at the tokenizer for every kind of background, view and preset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from sdi_gs.cameras import CameraBatch, orbit_cameras
from sdi_gs.configs.presets import preset
from sdi_gs.configs.stable_diffusion import NEGATIVE_PROMPT
from sdi_gs.doctor.miniature import SMALLEST, miniature_networks, prior_of_networks
from sdi_gs.priors.latent_diffusion import LatentDiffusionPrior
from sdi_gs.settings.run import RunConfig
from sdi_gs.training.prior_setup import conditions_of

VIEWS = ("front view", "side view", "back view", "overhead view")
PROMPT = "a corgi"


class Recorder:
    """A tokenizer that keeps the texts that it is given, by batches."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.model_max_length = tokenizer, tokenizer.model_max_length
        self.batches: list[list[str]] = []

    def __call__(self, texts: str | Sequence[str], **options: Any) -> Any:
        if not isinstance(texts, str):
            self.batches.append(list(texts))
        return self.tokenizer(texts, **options)


@pytest.fixture(scope="module")
def networks() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return miniature_networks(SMALLEST, device="cpu")


@pytest.fixture
def prior(networks: Any) -> LatentDiffusionPrior:
    made: Any = prior_of_networks(networks, model="sd21-base")
    made.tokenizer = Recorder(made.tokenizer)
    return made


def recorded(prior: Any) -> list[str]:
    [texts] = prior.tokenizer.batches
    return texts


def from_all_sides() -> CameraBatch:
    """Cameras straight in front, to the right, behind, to the left, and above."""
    azimuths = torch.tensor([0.0, 90.0, 180.0, -90.0, 0.0])
    ones = torch.ones(5)
    elevations = torch.tensor([0.0, 0.0, 0.0, 0.0, 70.0])
    return orbit_cameras(azimuths, elevations, 3.0 * ones, 40.0 * ones, width=8, height=8)


def of_views(ending: str) -> list[str]:
    return [f"{PROMPT}, {view}{ending}" for view in VIEWS]


# Settings, and what follows the view's words over each background; None for a background that is never drawn.
KINDS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "white": ({"backgrounds": ["white"]}, {"white": ", white background"}),
    "gray": ({"backgrounds": ["gray"]}, {"gray": ", gray background"}),
    "black": ({"backgrounds": ["black"]}, {"black": ", black background"}),
    "random": ({"backgrounds": ["random"]}, {"random": ""}),
    "white, black, random": (
        {"backgrounds": ["white", "black", "random"], "background_weights": [0.4, 0.3, 0.3]},
        {"white": ", white background", "black": ", black background", "random": ""},
    ),
    "a field's solid": ({"representation": "ngp", "ngp.background": "given"}, {"white": ", white background"}),
    "a field's environment": ({"representation": "ngp", "ngp.background": "environment"}, {"white": ""}),
    "a field's random": ({"representation": "ngp", "ngp.background": "random"}, {"white": ""}),
}


@pytest.mark.parametrize("perp_neg", [False, True])
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("kind", list(KINDS))
def test_every_background_and_view(prior: LatentDiffusionPrior, kind: str, named: bool, perp_neg: bool) -> None:
    settings, endings = KINDS[kind]
    config = preset("sd21-base", {**settings, "prompt_background": named, "guidance.perp_neg": perp_neg}, prompt=PROMPT)
    conditions = conditions_of(prior, config)
    endings = {background: ending if named else "" for background, ending in endings.items()}
    texts = recorded(prior)
    expected = [f"{PROMPT}, {view}{ending}" for view in VIEWS for ending in dict.fromkeys(endings.values())]
    assert texts == [*expected, ""]
    rows = dict(zip(texts, prior.embed_prompts(texts), strict=True))
    cameras = from_all_sides()
    for background, ending in endings.items():
        given = conditions.for_cameras(cameras, [background] * len(cameras), perp_neg=perp_neg)  # pyright: ignore[reportArgumentType]
        sides = ("front view", "side view", "back view", "side view", "overhead view")
        wanted = torch.stack([rows[f"{PROMPT}, {side}{ending}"] for side in sides])
        # Straight views are blends of one word.
        torch.testing.assert_close(given.prompt_embeddings, wanted)
        torch.testing.assert_close(given.negative_embeddings, rows[""].expand_as(wanted))
    assert len({tuple(row.flatten().tolist()) for row in rows.values()}) == len(rows)


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("sdi-paper-ngp", [*of_views(""), ""]),
        ("sdi-paper-3dgs", [*of_views(""), NEGATIVE_PROMPT]),
        ("sd21-base", [*of_views(""), ""]),
        ("sd21-ngp", [*of_views(""), ""]),
        ("sd21", [*of_views(""), ""]),
        ("sd15", [*of_views(""), NEGATIVE_PROMPT]),
        (
            "smoke",
            [*(f"{text}, {name} background" for text in of_views("") for name in ("white", "gray", "black")), ""],
        ),
    ],
)
def test_every_preset_that_names_views(prior: LatentDiffusionPrior, name: str, texts: list[str]) -> None:
    conditions_of(prior, preset(name, prompt=PROMPT))
    assert recorded(prior) == texts


def test_a_side_of_its_own_text_names_the_background_and_no_view(prior: LatentDiffusionPrior) -> None:
    own = {"view_prompts.back": "a corgi from behind", "prompt_background": True}
    conditions_of(prior, preset("sd21-base", own, prompt=PROMPT))
    views = [text for text in of_views(", white background") if "back view" not in text]
    assert recorded(prior) == [*views[:2], "a corgi from behind, white background", views[2], ""]


def test_a_run_of_no_preset_names_a_solid_background(prior: LatentDiffusionPrior) -> None:
    conditions_of(prior, RunConfig(prompt=PROMPT))
    assert recorded(prior) == [*of_views(", white background"), ""]
