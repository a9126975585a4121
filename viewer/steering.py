"""The settings that the page can change, each with the range that its numbers are held to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tree import config_to_dict, flatten
from sdi_gs.viewer import labels

MAX_PROMPT_LENGTH = 1000
"""Letters of a prompt that the page passes on; CLIP reads about 300."""


@dataclass(frozen=True, kw_only=True)
class NumberControl:
    """A number on the page and the config leaf that it sets."""

    label: str
    key: str
    """Dotted name in the run's config."""
    low: float
    high: float
    step: float
    hint: str

    @property
    def is_whole(self) -> bool:
        """Whether the config holds an int."""
        return isinstance(self.low, int)

    def clamp(self, value: float) -> float:
        """The nearest value that the config accepts; the low end for what is no number."""
        number = float(value)
        if math.isnan(number):
            return self.low
        held = min(max(number, self.low), self.high)
        return int(round(held)) if self.is_whole else held


@dataclass(frozen=True, kw_only=True)
class TextControl:
    """A text on the page and the config leaf that it sets."""

    label: str
    key: str

    def clean(self, value: str) -> str:
        """One line of bounded length."""
        return " ".join(str(value).split())[:MAX_PROMPT_LENGTH]


TEXT_CONTROLS = (
    TextControl(label=labels.PROMPT, key="prompt"),
    TextControl(label=labels.NEGATIVE_PROMPT, key="negative_prompt"),
)

NUMBER_CONTROLS = (
    NumberControl(
        label=labels.GUIDANCE_SCALE,
        key="guidance.guidance_scale",
        low=-100.0,
        high=100.0,
        step=0.1,
        hint="Guidance scale of the denoised target",
    ),
    NumberControl(
        label=labels.INVERSION_SCALE,
        key="guidance.inversion_guidance_scale",
        low=-100.0,
        high=100.0,
        step=0.1,
        hint="Guidance scale of the inversion; it follows minus γ_fwd until it is set",
    ),
    NumberControl(
        label=labels.INVERSION_STEPS,
        key="guidance.inversion_steps",
        low=1,
        high=1000,
        step=1,
        hint="Length of the full inversion grid",
    ),
    NumberControl(
        label=labels.T_MIN,
        key="guidance.t_min",
        low=0.001,
        high=1.0,
        step=0.01,
        hint="Last timestep as a share of the diffusion's length",
    ),
    NumberControl(
        label=labels.T_MAX,
        key="guidance.t_max",
        low=0.001,
        high=1.0,
        step=0.01,
        hint="First timestep as a share of the diffusion's length",
    ),
    NumberControl(
        label=labels.VIEWS_PER_STEP, key="views_per_step", low=1, high=64, step=1, hint="Cameras rendered in each step"
    ),
    NumberControl(
        label=labels.LEARNING_RATE_SCALE,
        key="learning_rate_scale",
        low=0.001,
        high=1000.0,
        step=0.1,
        hint="Factor on every learning rate of the run",
    ),
)
"""The ranges are the config's own where it has one."""


def shown_values(config: RunConfig) -> dict[str, Any]:
    """What every control shows under a config, by key."""
    flat = flatten(config_to_dict(config))
    flat["guidance.inversion_guidance_scale"] = config.guidance.resolved_inversion_scale
    return {control.key: flat[control.key] for control in (*TEXT_CONTROLS, *NUMBER_CONTROLS)}


def wanted_changes(config: RunConfig, entered: Mapping[str, Any]) -> dict[str, Any]:
    """What was entered, cleaned and clamped, where it differs from what a config shows."""
    shown = shown_values(config)
    cleaned: dict[str, Any] = {control.key: control.clean(entered[control.key]) for control in TEXT_CONTROLS}
    cleaned |= {control.key: control.clamp(entered[control.key]) for control in NUMBER_CONTROLS}
    return {key: value for key, value in cleaned.items() if value != shown[key]}
