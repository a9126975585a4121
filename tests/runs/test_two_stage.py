"""How a run's settings are shared out between its two stages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sdi_gs.commands.parsing import parse_command
from sdi_gs.commands.train import Train, requested_run
from sdi_gs.configs.presets import preset_named
from sdi_gs.errors import UserError
from sdi_gs.runs.request import RunRequest
from sdi_gs.runs.two_stage import field_stage, splat_stage
from sdi_gs.settings.compute import ComputeConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.stages import StagesConfig
from sdi_gs.settings.tree import differing_keys

FIELD = Path("somewhere/robot-field")


def config(**changes: Any) -> RunConfig:
    return replace(preset_named("toybox-ideal").config, prompt="a blue robot", **changes)


@pytest.mark.parametrize(("steps", "share", "first"), [(300, 0.6, 180), (10, 0.25, 2), (2, 0.5, 1), (7, 0.9, 6)])
def test_the_stages_share_out_all_steps(steps: int, share: float, first: int) -> None:
    whole, stages = config(steps=steps), StagesConfig(field_share=share)
    assert field_stage(whole, stages).steps == first
    assert splat_stage(whole, stages, FIELD).steps == steps - first


def test_the_first_stage_differs_in_its_kind_and_its_steps_alone() -> None:
    whole = config()
    assert differing_keys(whole, field_stage(whole, StagesConfig())) == ["representation", "steps"]


def test_the_first_stage_has_what_suits_a_field_and_what_is_given() -> None:
    suited = preset_named("toybox-ideal").config_for("ngp")
    given = {"prompt": "a blue robot", "seed": 3, "guidance.t_min": 0.3}
    compute = ComputeConfig(views_at_once=1)
    request = RunRequest(config=config(), field_config=suited, given=given, two_stage=True)
    whole = request.settings(compute=compute)
    first = field_stage(whole, StagesConfig(), request.field_settings(compute))
    assert (first.prompt, first.seed, first.guidance.t_min, first.compute) == ("a blue robot", 3, 0.3, compute)
    assert (first.representation, first.steps) == ("ngp", 600)
    assert set(differing_keys(first, suited)) == {
        "prompt", "seed", "steps", "guidance.t_min", "compute.views_at_once"
    }  # fmt: skip
    assert first.views_per_step != whole.views_per_step
    assert RunRequest(config=config(), two_stage=True).field_settings(compute) is None


def test_the_command_gives_the_first_stage_what_the_preset_has_for_a_field() -> None:
    line = ["train", "--prompt", "a blue robot", "--preset", "toybox"]
    options = parse_command([*line, "--two-stage"], {"train": Train, "other": ComputeConfig})
    request, _ = requested_run(options)
    assert request.field_config == preset_named("toybox").config_for("ngp")
    request, _ = requested_run(parse_command(line, {"train": Train, "other": ComputeConfig}))
    assert request.field_config is None


def test_the_second_stage_starts_from_the_field_and_without_random_noise() -> None:
    whole = config()
    second = splat_stage(whole, StagesConfig(t_max=0.4), FIELD)
    assert (second.gaussians.init, second.gaussians.init_from) == ("run", str(FIELD))
    assert second.representation == "gaussians"
    assert (second.guidance.t_max, second.guidance.random_fraction) == (0.4, 0.0)
    changed = {"steps", "guidance.t_max", "guidance.random_fraction", "gaussians.init", "gaussians.init_from"}
    assert set(differing_keys(whole, second)) == changed


@pytest.mark.parametrize(("asked", "in_force"), [(0.1, 0.2), (0.5, 0.5), (0.9, 0.7)])
def test_the_second_stage_stays_within_the_timesteps_of_the_run(asked: float, in_force: float) -> None:
    whole = config()
    whole = replace(whole, guidance=replace(whole.guidance, t_min=0.2, t_max=0.7))
    assert splat_stage(whole, StagesConfig(t_max=asked), FIELD).guidance.t_max == in_force


@pytest.mark.parametrize(("steps", "share"), [(1, 0.5), (2, 0.1), (3, 0.95)])
def test_too_few_steps_for_two_stages_are_refused(steps: int, share: float) -> None:
    with pytest.raises(UserError, match=f"{steps} steps are too few for two stages: give more --steps"):
        field_stage(config(steps=steps), StagesConfig(field_share=share))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"field_share": 0.0}, "field_share must be above 0 and below 1, got 0.0"),
        ({"field_share": 1.0}, "field_share must be above 0 and below 1, got 1.0"),
        ({"t_max": 0.0}, "t_max must be above 0 and at most 1, got 0.0"),
        ({"t_max": 1.5}, "t_max must be above 0 and at most 1, got 1.5"),
    ],
)
def test_values_that_make_no_sense_are_refused(changes: dict[str, float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        StagesConfig(**changes)
