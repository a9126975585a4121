"""The preset that a command starts from: the named one, or the one for the prior or the device."""

from __future__ import annotations

from pathlib import Path

from sdi_gs.commands.common import pick_device
from sdi_gs.configs.presets import preset_for_prior, preset_named
from sdi_gs.settings.run import RunConfig

CPU_PRESET = "toybox-ideal"
"""What a run without a GPU starts from if nothing is asked for, its prior included; one line to change, with the README
and docs/reports/evidence.md, which say why."""
GPU_PRESET = "sd21-fast"
"""What a run on a card starts from: minutes, where ``OWN_MODEL_PRESET`` takes hours, and no score on toybox's network
was worse by it (docs/reports/sd21.md)."""
OWN_MODEL_PRESET = "sd21-base"
"""What a model of the user's own starts from: every target is new, and nothing about the model is assumed."""


def named_settings(
    preset: str | None, prior: str | None, resume: Path | str | None, representation: str | None = None
) -> tuple[RunConfig | None, str] | None:
    """Return the settings that these options choose and the reason; None if the device has to choose.

    They are those that the preset has for the ``representation``, its own if None.
    For a run to resume the settings are None: they are in its folder. Raises UserError for an unknown preset.
    """
    if preset is not None:
        return preset_named(preset).config_for(representation), f"preset {preset} as asked"
    if resume is not None:
        return None, f"settings of {resume}"
    if prior is not None:
        name = preset_of_prior(prior)
        return preset_named(name).config_for(representation), f"preset {name} fits this prior"
    return None


def preset_of_prior(prior: str) -> str:
    """Return the name of the preset that a prior starts from if no preset is named."""
    if prior == preset_named(GPU_PRESET).config.prior:
        return GPU_PRESET
    return preset_for_prior(prior) or OWN_MODEL_PRESET


def settings_for_device(device: str | None, representation: str | None = None) -> tuple[RunConfig, str]:
    """Return the settings for a device, or for the best one if None, and a representation, and the reason."""
    name = GPU_PRESET if pick_device(device).type == "cuda" else CPU_PRESET
    return preset_named(name).config_for(representation), f"preset {name}"
