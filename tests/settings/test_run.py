"""The config tree: what survives a file, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from sdi_gs.configs.presets import presets
from sdi_gs.errors import UserError
from sdi_gs.settings.guidance import GuidanceConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tree import config_from_dict, config_to_dict, differing_keys, flatten

CONFIGS = {name: preset.config for name, preset in presets().items()}
every_preset = pytest.mark.parametrize("config", [pytest.param(config, id=name) for name, config in CONFIGS.items()])


def with_value(key: str, value: Any) -> dict[str, Any]:
    """The default config's values with one of them changed."""
    values = config_to_dict(RunConfig())
    inner, *path = values, *key.split(".")
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return values


@every_preset
def test_a_config_survives_yaml_and_json(config: RunConfig) -> None:
    values = config_to_dict(config)
    assert config_from_dict(yaml.safe_load(yaml.safe_dump(values))) == config
    assert config_from_dict(json.loads(json.dumps(values))) == config


def test_a_config_of_version_0_1_is_read_as_it_was_written() -> None:
    """The file is what 0.1 wrote for a config with many settings changed."""
    written = yaml.safe_load((Path(__file__).parent / "config-0.1.yaml").read_text())
    read = flatten(config_to_dict(config_from_dict(written)))
    assert {key: read[key] for key in flatten(written)} == flatten(written)


def test_numbers_come_back_exactly() -> None:
    config = config_from_dict(with_value("gaussians.means_lr", 1e-05 / 3))
    text = yaml.safe_dump(config_to_dict(config))
    assert config_from_dict(yaml.safe_load(text)).gaussians.means_lr == 1e-05 / 3


def test_absent_keys_keep_their_defaults() -> None:
    assert config_from_dict({"steps": 7}) == replace(RunConfig(), steps=7)
    assert config_from_dict({"guidance": {"t_min": 0.5}}).guidance.t_max == RunConfig().guidance.t_max


def test_whole_numbers_pass_for_floats() -> None:
    value = config_from_dict(with_value("guidance.guidance_scale", 3)).guidance.guidance_scale
    assert value == 3.0
    assert isinstance(value, float)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("steps", 0, "steps must be 1 to 10000000, got 0"),
        ("steps", "12", "config: steps is '12'; accepted: int"),
        ("steps", True, "config: steps is True; accepted: int"),
        ("steps", 1.5, "config: steps is 1.5"),
        ("seed", -1, "seed must be 0 to 4611686018427387903, got -1"),
        ("guidance.t_min", 0.99, "config: guidance: t_min must be at most t_max, got 0.99 and 0.98"),
        ("guidance.annealing_end", 0.0, "config: guidance: annealing_end must be 0.001 to 1, got 0.0"),
        ("guidance.annealing", "falling", "config: guidance.annealing is 'falling'"),
        ("views_per_step", 65, "views_per_step must be 1 to 64"),
        ("prompt", 3, "config: prompt is 3; accepted: str"),
        ("representation", "mesh", "accepted: 'gaussians', 'ngp'"),
        ("guidance.noise", "pink", "config: guidance.noise is 'pink'; accepted: 'inversion', 'random'"),
        ("guidance.t_min", 2.0, "config: guidance: t_min must be 0.001 to 1, got 2.0"),
        ("guidance.inversion_guidance_scale", "low", "config: guidance.inversion_guidance_scale is 'low'"),
        ("guidance.inversion_data_std", 0.0, "inversion_data_std must be 0.001 to 100"),
        ("losses.fog", -0.1, "config: losses: fog must be 0 to 1000000, got -0.1"),
        ("losses.max_anisotropy", 0.5, "max_anisotropy must be 1 to 1000000"),
        ("gaussians.means_lr", 0.0, "config: gaussians: means_lr must be above 0 and at most 1000, got 0.0"),
        ("densify.enabled", 1, "config: densify.enabled is 1; accepted: bool"),
        ("cameras.distance", [1.0], "config: cameras.distance is [1.0]"),
        ("cameras.distance", [3.0, "far"], "config: cameras.distance[1] is 'far'"),
        (
            "cameras.elevation_deg",
            [40.0, -10.0],
            "must be an ordered pair within -90 to 90, got 40.0 -10.0",
        ),
        ("gaussians", "none", "config: gaussians must be a mapping, got str"),
        ("colour", "blue", "config: unknown key colour; known keys there: prompt,"),
        ("guidance.colour", "blue", "config: unknown key guidance.colour; known keys there: noise,"),
    ],
)
def test_a_bad_value_is_refused_by_its_name(key: str, value: Any, says: str) -> None:
    with pytest.raises(UserError) as refused:
        config_from_dict(with_value(key, value))
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_unknown_representation_is_refused_with_the_accepted_names() -> None:
    with pytest.raises(ValueError, match="representation must be one of gaussians, ngp, voxels, got 'planes'"):
        RunConfig(representation="planes")  # pyright: ignore[reportArgumentType]


def test_none_stands_for_a_value_that_is_derived() -> None:
    config = config_from_dict(with_value("guidance.inversion_guidance_scale", None))
    assert config.guidance.resolved_inversion_scale == -config.guidance.guidance_scale
    assert config_from_dict(with_value("guidance.inversion_guidance_scale", 0)).guidance.resolved_inversion_scale == 0.0


def test_differing_keys_are_named_with_their_path() -> None:
    base = CONFIGS["smoke"]
    other = replace(base, seed=9, guidance=replace(base.guidance, t_min=0.5))
    assert differing_keys(base, other) == ["seed", "guidance.t_min"]
    assert differing_keys(base, replace(base)) == []


def test_flatten_joins_names_by_dots() -> None:
    assert flatten({"a": 1, "b": {"c": {"d": 2}, "e": [3]}}) == {"a": 1, "b.c.d": 2, "b.e": [3]}


def test_a_widening_range_of_t_ends_within_its_bounds() -> None:
    says = "with annealing widening, t_max_final must be t_min to t_max, 0.25 to 0.98, got 0.2"
    with pytest.raises(ValueError, match=says):
        GuidanceConfig(annealing="widening", t_max_final=0.2)
    assert GuidanceConfig(t_max_final=0.2).t_max_final == 0.2
