"""Numbers and texts of the page, held to what the config takes."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from sdi_gs.configs.presets import preset_named
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.steering import STEERABLE
from sdi_gs.settings.tree import with_values
from sdi_gs.viewer.steering import (
    MAX_PROMPT_LENGTH,
    NUMBER_CONTROLS,
    TEXT_CONTROLS,
    NumberControl,
    shown_values,
    wanted_changes,
)

each_number = pytest.mark.parametrize("control", NUMBER_CONTROLS, ids=lambda control: control.setting.label)


def config() -> RunConfig:
    return replace(preset_named("smoke").config, prompt="a blue robot")


def wide_open() -> RunConfig:
    """A config under which no range depends on another setting."""
    return with_values(config(), {"guidance.t_min": 0.001, "guidance.t_max": 1.0})


@each_number
def test_both_ends_of_every_range_are_accepted_by_the_config(control: NumberControl) -> None:
    for end in (control.bounds.low, control.bounds.high):
        assert shown_values(with_values(wide_open(), {control.setting.key: end}))[control.setting.key] == end


@each_number
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300, -1e300, -5, 0, 2.5])
def test_whatever_is_sent_becomes_a_value_within_the_range(control: NumberControl, value: float) -> None:
    held = control.clamp(value)
    assert held in control.bounds
    assert isinstance(held, int) == control.is_whole
    if value in control.bounds:
        assert abs(held - value) <= 0.5 * control.is_whole
    with_values(wide_open(), {control.setting.key: held})


def test_the_page_steers_what_a_trainer_can_change_and_nothing_else() -> None:
    assert set(shown_values(config())) == set(STEERABLE)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("  a red\tcar \n", "a red car"),
        ("x" * 5000, "x" * MAX_PROMPT_LENGTH),
        ("/etc/passwd; rm -rf /", "/etc/passwd; rm -rf /"),
        ("", ""),
    ],
)
def test_prompts_become_one_line_of_bounded_length(sent: str, kept: str) -> None:
    assert TEXT_CONTROLS[0].clean(sent) == kept


def entered(settings: RunConfig, **changes: Any) -> dict[str, Any]:
    """What the page's controls hold when a user has changed some of them."""
    shown = shown_values(settings)
    keys = {key.rpartition(".")[2]: key for key in shown}
    return shown | {keys[name]: value for name, value in changes.items()}


def test_only_what_differs_is_asked_for() -> None:
    settings = config()
    assert wanted_changes(settings, entered(settings)) == {}
    changed = entered(settings, prompt=" a red  car", views_per_step=4.0, t_max=5.0)
    assert wanted_changes(settings, changed) == {"prompt": "a red car", "views_per_step": 4, "guidance.t_max": 1.0}


def test_gamma_inv_follows_gamma_fwd_until_it_is_set() -> None:
    settings = config()
    assert settings.guidance.inversion_guidance_scale is None
    shown = shown_values(settings)
    assert shown["guidance.inversion_guidance_scale"] == -shown["guidance.guidance_scale"]
    changes = wanted_changes(settings, entered(settings, guidance_scale=7.5))
    assert changes == {"guidance.guidance_scale": 7.5}
    assert with_values(settings, changes).guidance.resolved_inversion_scale == -7.5
    changes = wanted_changes(settings, entered(settings, inversion_guidance_scale=0.0))
    assert with_values(settings, changes).guidance.resolved_inversion_scale == 0.0
