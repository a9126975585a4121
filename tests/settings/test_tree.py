"""Settings by their dotted names, and presets with some of them changed."""

from __future__ import annotations

import pytest

from sdi_gs.configs.presets import preset, preset_named
from sdi_gs.errors import UserError
from sdi_gs.settings.guidance import GuidanceConfig
from sdi_gs.settings.tree import differing_keys, with_values


def test_a_preset_changes_what_is_given_and_nothing_else() -> None:
    config = preset(
        "toybox", {"guidance.noise": "cached", "cameras.fov_y_deg": (30.0, 50.0)}, prompt="a red cube", steps=7
    )
    assert (config.prompt, config.steps, config.guidance.noise) == ("a red cube", 7, "cached")
    assert config.cameras.fov_y_deg == (30.0, 50.0)
    changed = differing_keys(preset_named("toybox").config, config)
    assert sorted(changed) == ["cameras.fov_y_deg", "guidance.noise", "prompt", "steps"]


def test_a_group_of_settings_is_replaced_as_a_whole() -> None:
    config = preset("toybox", guidance=GuidanceConfig(guidance_scale=3.0), prompt="a red cube")
    assert config.guidance == GuidanceConfig(guidance_scale=3.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"guidance.noisy": "random"}, "unknown key guidance.noisy; known keys there: noise, "),
        ({"guide.noise": "random"}, "unknown key guide.noise; known groups there: view_prompts, "),
        ({"steps.noise": 1}, "unknown key steps.noise; known groups there: "),
        ({"guidance.noise": "pink"}, "guidance.noise"),
    ],
)
def test_a_wrong_name_or_value_is_refused_in_one_line(values: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        with_values(preset_named("toybox").config, values)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(UserError, match='unknown preset "toyboxx"; known: toybox-ideal'):
        preset("toyboxx")
