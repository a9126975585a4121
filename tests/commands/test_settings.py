"""The settings of `sdi-gs train`: read once, laid over the preset's and the tier's, validated as a whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import tyro
from command_line import SMOKE, refusal

from sdi_gs.commands.defaults import named_settings
from sdi_gs.commands.main import main
from sdi_gs.commands.parsing import parse_command
from sdi_gs.commands.train import Train, requested_run
from sdi_gs.configs.presets import Preset, preset_named
from sdi_gs.errors import UserError
from sdi_gs.runs.launch import settings_of_new_run
from sdi_gs.settings.compute import ComputeConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tiers import tier_named
from sdi_gs.settings.tree import flatten


def options_of(*words: str) -> Train:
    return parse_command(["train", *words], {"train": Train, "other": ComputeConfig})


def given(*words: str) -> dict[str, Any]:
    return flatten(dict(options_of(*words).settings))


def settings(*words: str) -> RunConfig:
    """The settings that a run of these options is started with."""
    request, _ = requested_run(options_of(*SMOKE[1:], *words))
    return settings_of_new_run(request, device=torch.device("cpu"))


def test_only_what_stands_on_the_line_counts_as_given() -> None:
    assert given() == {}
    assert given("--steps", "3", "--preset", "smoke", "--viewer") == {"steps": 3}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--noise", "random"), {"guidance.noise": "random"}),
        (("--guidance.noise", "random"), {"guidance.noise": "random"}),
        (("--init", "None"), {"gaussians.init": None}),
        (("--guidance.t_min=0.5",), {"guidance.t_min": 0.5}),
        (("--densify.enabled",), {"densify.enabled": True}),
        (("--densify.no-enabled",), {"densify.enabled": False}),
        (("--cameras.distance", "2", "3"), {"cameras.distance": (2.0, 3.0)}),
        (("--backgrounds", "white", "black"), {"backgrounds": ("white", "black")}),
        (("--steps", "3", "--steps", "4"), {"steps": 4}),
        (("--ngp.grid.num-levels", "5"), {"ngp.grid.num_levels": 5}),
        (("--prompt", "a car --steps 3"), {"prompt": "a car --steps 3"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_every_way_to_write_an_option_gives_its_setting(words: tuple[str, ...], expected: dict[str, Any]) -> None:
    assert given(*words) == expected


def test_the_everyday_options_reach_the_settings() -> None:
    config = settings("--noise", "random", "--steps", "7", "--seed", "5", "--densify.max-gaussians", "5000")
    assert (config.guidance.noise, config.steps, config.seed) == ("random", 7, 5)
    assert config.densify.max_gaussians == 5000
    assert (config.prior, config.prompt) == ("toybox-ideal", "a blue robot")
    # All else is the preset's.
    assert config.gaussians == preset_named("smoke").config.gaussians


def test_the_command_line_is_read_once(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, calls = tyro.cli, list[list[str]]()

    def counted(*parts: Any, **options: Any) -> Any:
        calls.append(options["args"])
        return read(*parts, **options)

    monkeypatch.setattr(tyro, "cli", counted)
    words = ["train", "--prompt", "a blue dragon", "--device", "cpu", "--tier", "8"]
    assert main(words) == 2
    assert calls == [words]


# Checks of several settings at once see the final ones.


def test_a_setting_is_checked_beside_those_of_the_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    smoke = preset_named("smoke").config
    late = Preset(summary="", config=replace(smoke, densify=replace(smoke.densify, start=0.2, stop=0.9)))
    monkeypatch.setattr("sdi_gs.commands.defaults.preset_named", lambda name: late)
    assert settings("--densify.start", "0.7").densify.start == 0.7
    with pytest.raises(UserError, match="^densify: start must be at most stop, got 0.95 and 0.9$"):
        settings("--densify.start", "0.95")


@pytest.mark.parametrize("words", [("--densify.start", "0.7", "--densify.stop", "0.8")])
def test_settings_that_only_go_together_may_be_given_in_any_order(words: tuple[str, ...]) -> None:
    for order in (words, (*words[2:], *words[:2])):
        densify = settings(*order).densify
        assert (densify.start, densify.stop) == (0.7, 0.8)


def test_settings_of_different_groups_are_checked_together(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert settings("--cameras.antithetic", "--views-per-step", "4").views_per_step == 4
    assert "antithetic needs an even views_per_step, got 3" in refusal(
        [*SMOKE, "--cameras.antithetic", "--views-per-step", "3"], capsys
    )


# The preset, then the tier, then what is given.


def test_the_preset_is_named_or_follows_from_the_prior() -> None:
    for words, preset in (
        (("--preset", "smoke"), "smoke"),
        (("--preset=smoke", "--prior", "toybox"), "smoke"),
        (("--prior", "toybox"), "toybox"),
        (("--prior", "some/folder"), "sd21-base"),
    ):
        request, chosen = requested_run(options_of("--prompt", "x", *words))
        assert request.config == preset_named(preset).config
        assert f"preset {preset}" in chosen
    assert named_settings(None, None, None) is None
    assert named_settings(None, "toybox", Path("a-run")) == (None, "settings of a-run")


def test_the_preset_has_settings_for_the_representation(monkeypatch: pytest.MonkeyPatch) -> None:
    suited = {"steps": 123, "views_per_step": 3}
    some = Preset(summary="", config=preset_named("smoke").config, by_representation={"ngp": suited})
    monkeypatch.setattr("sdi_gs.commands.defaults.preset_named", lambda name: some)
    for origin in (("--preset", "smoke"), ("--prior", "toybox"), ("--device", "cpu")):
        words = ("--prompt", "x", *origin, "--representation", "ngp", "--views-per-step", "2")
        config = requested_run(options_of(*words))[0].settings()
        assert (config.representation, config.steps, config.views_per_step) == ("ngp", 123, 2)
    assert settings().steps == some.config.steps


def test_on_a_cpu_no_tier_is_chosen() -> None:
    assert settings().compute == settings("--tier", "none").compute == ComputeConfig()


def test_a_named_tier_sets_what_the_command_leaves_open() -> None:
    tier = tier_named("8").compute
    assert settings("--tier", "8").compute == tier
    assert settings("--tier", "8", "--compute.views-at-once", "3").compute == replace(tier, views_at_once=3)
    # Also where the value given is the one without a tier.
    assert settings("--tier", "8", "--compute.views-at-once", "0").compute == replace(tier, views_at_once=0)


def test_an_unknown_tier_is_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal([*SMOKE, "--tier", "10"], capsys)
    assert "--tier" in said
    assert "'12'" in said
