"""The settings of every arm under every setting of a study, checked to differ. Imports no torch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from sdi_gs.errors import UserError
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tree import config_to_dict, differing_keys, flatten
from sdi_gs.study.spec import Setting, Study

PresetOf = Callable[[str, Mapping[str, Any]], RunConfig]
"""Returns a preset's settings by its name, those for the representation that the changes name, so changed."""

INVERTING = ("inversion", "unconditional", "interval")
"""Noise sources that take inversion steps."""

OWNERS = {"gaussians": "gaussians", "densify": "gaussians", "ngp": "ngp", "voxels": "voxels"}
"""The representation that a group of settings is for."""

QUIET: Mapping[str, Any] = {"outputs.preview_every": 0, "outputs.turntable_frames": 0}
"""Files that no study looks at; a study may ask for them."""


def arm_configs(study: Study, preset: PresetOf, changes: Mapping[str, Any]) -> dict[tuple[str, str], RunConfig]:
    """Return the settings by the names of setting and arm; ``changes`` win over the settings', not over the arms'.

    Raises UserError for settings that are none, for an arm that changes nothing, and for two that do not differ.
    """
    found = {}
    for setting in study.settings:
        base = {**QUIET, **setting.changes, **changes}
        used = {name for block in study.blocks if block.setting == setting.name for name in block.arms}
        configs: dict[str, RunConfig] = {}
        for arm in study.arms:
            if arm.name in used | {study.reference}:
                own = {**arm.changes, **setting.suited.get(arm.name, {})}
                place = f"study {study.name}, {setting.name}, arm {arm.name}"
                configs[arm.name] = _config(preset, setting.preset, {**base, **own}, place)
                _require_change(preset, setting, base, own, configs[arm.name], place)
        _require_difference(configs, study, setting)
        found |= {(setting.name, name): config for name, config in configs.items()}
    return found


def _config(preset: PresetOf, name: str, values: Mapping[str, Any], place: str) -> RunConfig:
    try:
        return preset(name, values)
    except UserError as error:
        raise UserError(f"{place}: {error}") from error


def _require_change(
    preset: PresetOf, setting: Setting, base: Mapping[str, Any], own: Mapping[str, Any], config: RunConfig, place: str
) -> None:
    """Raise UserError for an arm that gives settings of which none has an effect; one that gives none is the base."""
    if not own:
        return
    if config == preset(setting.preset, base):
        raise UserError(
            f"{place} changes nothing: {', '.join(own)} {'are' if len(own) > 1 else 'is'} so without it; "
            "give it other values, or leave the arm's set out"
        )
    reasons = [_why_without_effect(name, config) for name in own]
    if all(reasons):
        raise UserError(f"{place} changes nothing: {'; '.join(str(reason) for reason in reasons)}")


def _why_without_effect(name: str, config: RunConfig) -> str | None:
    """Return why a setting has no effect in a run; None if it has, as far as is known here."""
    noise, group = config.guidance.noise, name.partition(".")[0]
    if name.startswith("guidance.inversion_") and noise not in INVERTING:
        return f"{name} has no effect with guidance.noise {noise}"
    if name == "guidance.inversion_guidance_scale" and noise != "inversion":
        return f"{name} has no effect with guidance.noise {noise}"
    if name == "guidance.fixed_point_iterations" and noise != "fixed-point":
        return f"{name} has no effect with guidance.noise {noise}"
    if name == "guidance.perp_neg_calls" and not config.guidance.perp_neg:
        return f"{name} has no effect without guidance.perp_neg"
    owner = OWNERS.get(group)
    if owner is not None and owner != config.representation:
        return f"{name} has no effect with representation {config.representation}"
    if name == "replay.views" and config.replay.steps_per_target == 1:
        return f"{name} has no effect with replay.steps_per_target 1"
    return None


def _require_difference(configs: Mapping[str, RunConfig], study: Study, setting: Setting) -> None:
    for (first, one), (second, other) in itertools.combinations(configs.items(), 2):
        if one == other:
            raise UserError(
                f"study {study.name}, {setting.name}: arms {first} and {second} do not differ; leave one of them out"
            )


def settings_apart_from_defaults(config: RunConfig) -> dict[str, Any]:
    """Return the leaves of a run's settings that differ from the package's defaults, by dotted name.

    Applied to the defaults they yield the settings again, prompt and seed left out.
    """
    default, own = RunConfig(), flatten(config_to_dict(config))
    names = [name for name in differing_keys(default, config) if name not in ("prompt", "seed")]
    return {name: own[name] for name in names}
