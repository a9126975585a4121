"""Settings written in the cells of a table."""

from __future__ import annotations

from typing import Any

import pytest

from sdi_gs.errors import UserError
from sdi_gs.settings.from_text import setting_from_text, setting_types, similar_setting
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tree import config_to_dict, flatten, with_values


def test_every_setting_can_be_written_as_it_is_shown() -> None:
    values = flatten(config_to_dict(RunConfig()))
    assert set(values) == set(setting_types())
    read = {
        name: setting_from_text(name, " ".join(map(str, value)) if isinstance(value, list) else str(value))
        for name, value in values.items()
    }
    assert with_values(RunConfig(prompt="a", steps=1), read) == RunConfig()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("steps", " 300 ", 300),
        ("learning_rate_scale", "1e-2", 0.01),
        ("densify.enabled", "TRUE", True),
        ("densify.enabled", "no", False),
        ("background_weights", "none", None),
        ("background_weights", "1 2.5", (1.0, 2.5)),
        ("lora", "'my file.safetensors:0.5' b", ("my file.safetensors:0.5", "b")),
        ("prior", "sd21-base", "sd21-base"),
    ],
)
def test_texts_become_values(name: str, text: str, value: Any) -> None:
    assert setting_from_text(name, text) == value
    assert type(setting_from_text(name, text)) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "accepted"),
    [
        ("steps", "3.5", "a whole number"),
        ("steps", "many", "a whole number"),
        ("learning_rate_scale", "fast", "a number"),
        ("densify.enabled", "maybe", "true or false"),
        ("guidance.noise", "invert", "inversion"),
        ("cameras.distance", "1 2 3", "2 values"),
        ("lora", "'half", "no other half"),
    ],
)
def test_texts_that_are_no_value_are_refused_with_what_is_accepted(name: str, text: str, accepted: str) -> None:
    with pytest.raises(UserError, match=accepted) as caught:
        setting_from_text(name, text)
    assert text in str(caught.value)


def test_a_mistyped_setting_finds_the_one_that_was_meant() -> None:
    assert similar_setting("noise") == "guidance.noise"
    assert similar_setting("guidance.nose") == "guidance.noise"
    assert similar_setting("promt", ["prompt"]) == "prompt"
    assert similar_setting("xyzzy") is None
