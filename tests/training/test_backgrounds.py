"""What the views of a step are shown over, and what prompts say of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sdi_gs.cameras import orbit_cameras
from sdi_gs.configs.presets import preset, presets
from sdi_gs.errors import UserError
from sdi_gs.settings.backgrounds import BACKGROUND_COLOURS, BackgroundChoice
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tree import config_from_dict, config_to_dict, with_values
from sdi_gs.training.backgrounds import colours_of, draw_backgrounds
from sdi_gs.training.prior_setup import conditions_of

VIEWS = ("front view", "side view", "back view", "overhead view")


class ListeningPrior:
    """Records every text that its text encoder is given, which it embeds as its place in the record."""

    name = "listening"
    knows_cameras = False

    def __init__(self) -> None:
        self.texts: list[str] = []

    def embed_prompts(self, prompts: Sequence[str]) -> Tensor:
        first = len(self.texts)
        self.texts.extend(prompts)
        return torch.arange(first, len(self.texts), dtype=torch.float64)[:, None, None]


def seen_by_view(config: RunConfig) -> dict[str, set[str]]:
    """Return the texts under which views are guided, by the view's word."""
    prior: Any = ListeningPrior()
    conditions = conditions_of(prior, config)
    cameras = orbit_cameras(
        torch.tensor([0.0, 90.0, 180.0, 0.0]),
        torch.tensor([0.0, 0.0, 0.0, 80.0]),
        torch.full((4,), 2.0),
        torch.full((4,), 40.0),
        width=8,
        height=8,
    )
    seen: dict[str, set[str]] = {}
    for background in config.backgrounds:
        behind: list[BackgroundChoice] = [background] * 4
        guided = conditions.for_cameras(cameras, behind, perp_neg=False).prompt_embeddings
        for view, row in zip(cameras.view_words(), guided[:, 0, 0].tolist(), strict=True):
            seen.setdefault(view, set()).add(prior.texts[int(row)])
    return seen


@pytest.mark.parametrize(
    ("given", "endings"),
    [
        ({}, [", white background"]),
        ({"backgrounds": ["white", "black"]}, [", white background", ", black background"]),
        ({"backgrounds": ["gray", "random"]}, [", gray background", ""]),
        ({"prompt_background": False}, [""]),
        ({"prompt_background": False, "backgrounds": ["white", "black"]}, [""]),
        ({"representation": "ngp"}, [", white background"]),
        ({"representation": "ngp", "ngp.background": "environment"}, [""]),
        ({"representation": "ngp", "ngp.background": "random"}, [""]),
        # Of a field's background a cloud knows nothing.
        ({"ngp.background": "environment"}, [", white background"]),
    ],
    ids=str,
)
def test_the_text_encoder_is_told_of_backgrounds_that_have_a_name(given: dict[str, Any], endings: list[str]) -> None:
    config = with_values(RunConfig(prompt="a corgi"), given)
    assert seen_by_view(config) == {view: {f"a corgi, {view}{ending}" for ending in endings} for view in VIEWS}


@pytest.mark.parametrize("name", [name for name, entry in presets().items() if entry.config.prior.startswith("sd")])
@pytest.mark.parametrize("representation", ["gaussians", "ngp"])
def test_stable_diffusion_is_told_what_threestudio_tells_it(name: str, representation: str) -> None:
    config = preset(name, representation=representation, prompt="a corgi")
    assert seen_by_view(config) == {view: {f"a corgi, {view}"} for view in VIEWS}


def test_runs_from_before_the_setting_go_on_naming_the_background() -> None:
    values = config_to_dict(RunConfig(prompt="a corgi"))
    del values["prompt_background"]
    assert config_from_dict(values).prompt_background


def test_equal_shares_are_drawn_as_they_always_were() -> None:
    choices: tuple[BackgroundChoice, ...] = ("white", "gray", "black")
    drawn = draw_backgrounds(choices, 8, torch.Generator().manual_seed(1))
    indices = torch.randint(3, (8,), generator=torch.Generator().manual_seed(1))
    assert drawn == [choices[index] for index in indices]


def test_weights_decide_how_often_a_background_is_drawn() -> None:
    drawn = draw_backgrounds(("white", "black", "random"), 20_000, torch.Generator().manual_seed(0), (34.0, 33.0, 33.0))
    shares = {name: count / len(drawn) for name, count in Counter(drawn).items()}
    assert shares == pytest.approx({"white": 0.34, "black": 0.33, "random": 0.33}, abs=0.012)
    assert set(draw_backgrounds(("white", "black"), 50, torch.Generator().manual_seed(0), (0.0, 2.0))) == {"black"}


def test_a_random_background_is_a_colour_of_each_views_own_and_the_others_draw_nothing() -> None:
    generator = torch.Generator().manual_seed(4)
    before = generator.get_state()
    named = colours_of(["gray", "black"], generator, torch.device("cpu"))
    assert named.tolist() == [list(BACKGROUND_COLOURS["gray"]), list(BACKGROUND_COLOURS["black"])]
    assert torch.equal(generator.get_state(), before)
    random: list[BackgroundChoice] = ["random"] * 4000
    colours = colours_of(random, generator, torch.device("cpu"))
    assert colours.mean(dim=0).tolist() == pytest.approx([0.5] * 3, abs=0.02)
    assert colours.var(dim=0).tolist() == pytest.approx([1.0 / 12.0] * 3, rel=0.06)


@pytest.mark.parametrize("weights", [(), (1.0,), (0.0, 0.0), (1.0, -1.0)])
def test_weights_that_do_not_fit_the_backgrounds_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="background_weights must be"):
        replace(RunConfig(), backgrounds=("white", "black"), background_weights=weights)
    with pytest.raises(UserError, match="background_weights must be"):
        with_values(RunConfig(), {"backgrounds": ["white", "black"], "background_weights": list(weights)})
