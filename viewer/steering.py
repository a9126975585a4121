"""The controls of the settings that the page can change."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdi_gs.settings.bounds import Range, range_of
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.steering import STEERED_NUMBERS, STEERED_TEXTS, SteeredNumber, SteeredText
from sdi_gs.settings.tree import config_to_dict, flatten

MAX_PROMPT_LENGTH = 1000
"""Characters of a prompt that the page accepts; CLIP reads about 300."""


@dataclass(frozen=True, kw_only=True)
class NumberControl:
    """The control of a number."""

    setting: SteeredNumber
    bounds: Range
    """Numbers that the config accepts."""

    @property
    def is_whole(self) -> bool:
        """Whether the setting is an int."""
        return isinstance(self.bounds.low, int)

    def clamp(self, value: float) -> float:
        """Return the nearest value that the config accepts; the low end for NaN."""
        number = float(value)
        if math.isnan(number):
            return self.bounds.low
        held = min(max(number, self.bounds.low), self.bounds.high)
        return int(round(held)) if self.is_whole else held


@dataclass(frozen=True, kw_only=True)
class TextControl:
    """The control of a text."""

    setting: SteeredText

    def clean(self, value: str) -> str:
        """Return one line of bounded length."""
        return " ".join(str(value).split())[:MAX_PROMPT_LENGTH]


TEXT_CONTROLS = tuple(TextControl(setting=setting) for setting in STEERED_TEXTS)
NUMBER_CONTROLS = tuple(
    NumberControl(setting=setting, bounds=range_of(RunConfig, setting.key)) for setting in STEERED_NUMBERS
)
LABELS = {control.setting.key: control.setting.label for control in (*TEXT_CONTROLS, *NUMBER_CONTROLS)}
"""Names of the controls on the page, by the dotted name of the setting."""


def shown_values(config: RunConfig) -> dict[str, Any]:
    """Return the value that every control shows under a config, by the setting's dotted name."""
    flat = flatten(config_to_dict(config))
    flat["guidance.inversion_guidance_scale"] = config.guidance.resolved_inversion_scale
    return {key: flat[key] for key in LABELS}


def wanted_changes(config: RunConfig, entered: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entered values, cleaned and clamped, that differ from those a config shows."""
    shown = shown_values(config)
    cleaned: dict[str, Any] = {text.setting.key: text.clean(entered[text.setting.key]) for text in TEXT_CONTROLS}
    cleaned |= {number.setting.key: number.clamp(entered[number.setting.key]) for number in NUMBER_CONTROLS}
    return {key: value for key, value in cleaned.items() if value != shown[key]}
