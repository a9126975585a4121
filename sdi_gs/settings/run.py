"""The configuration of a run: one tree, assembled from the configs that live beside their owners.

Nothing here imports torch, so that the command line can show every option at once.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sdi_gs.errors import UserError
from sdi_gs.settings.backgrounds import BackgroundName
from sdi_gs.settings.cameras import CameraConfig
from sdi_gs.settings.compute import ComputeConfig
from sdi_gs.settings.gaussians import DensifyConfig, GaussiansConfig
from sdi_gs.settings.guidance import GuidanceConfig, ViewPromptsConfig
from sdi_gs.settings.losses import LossConfig
from sdi_gs.settings.ngp import NgpConfig
from sdi_gs.settings.priors import IdealPriorConfig


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """What a run leaves in its folder besides the splats."""

    preview_every: int = 50
    """Steps between preview pictures; 0 for none."""
    checkpoint_every: int = 100
    """Steps between checkpoints; 0 for one at the end only."""
    turntable_frames: int = 48
    """Frames of the turntable; 0 for no video."""
    turntable_size: int = 256
    """Side of the turntable's frames in pixels."""

    def __post_init__(self) -> None:
        if min(self.preview_every, self.checkpoint_every, self.turntable_frames) < 0:
            raise ValueError("preview_every, checkpoint_every and turntable_frames must not be negative")
        if not 16 <= self.turntable_size <= 4096:
            raise ValueError(f"turntable_size must be 16 to 4096, got {self.turntable_size}")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides what a run computes."""

    prompt: str = ""
    """The sentence to turn into an object."""
    negative_prompt: str = ""
    """What the unconditional branch is told instead of nothing."""
    view_prompts: ViewPromptsConfig = field(default_factory=ViewPromptsConfig)
    prior: str = "toybox-ideal"
    """Diffusion prior: a known name, a folder in Stable Diffusion's layout, or a hub id."""
    representation: Literal["gaussians", "ngp"] = "gaussians"
    """What is optimised: a cloud (``gaussians``, ``densify``) or a hash-grid field (``ngp``)."""
    steps: int = 400
    """Optimisation steps; every schedule is tied to this number."""
    seed: int = 0
    """Seed of every random draw of the run."""
    views_per_step: int = 4
    """Cameras rendered in each step."""
    learning_rate_scale: float = 1.0
    """Factor on every learning rate."""
    backgrounds: tuple[BackgroundName, ...] = ("white",)
    """Solid backgrounds; each view draws one and its prompt names it."""
    cameras: CameraConfig = field(default_factory=CameraConfig)
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    gaussians: GaussiansConfig = field(default_factory=GaussiansConfig)
    densify: DensifyConfig = field(default_factory=DensifyConfig)
    ngp: NgpConfig = field(default_factory=NgpConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    ideal_prior: IdealPriorConfig = field(default_factory=IdealPriorConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    outputs: OutputConfig = field(default_factory=OutputConfig)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")
        if not 1 <= self.views_per_step <= 64:
            raise ValueError(f"views_per_step must be 1 to 64, got {self.views_per_step}")
        if not 1e-3 <= self.learning_rate_scale <= 1e3:
            raise ValueError(f"learning_rate_scale must be 0.001 to 1000, got {self.learning_rate_scale}")
        if self.cameras.antithetic and self.views_per_step % 2:
            raise ValueError(f"cameras.antithetic needs an even views_per_step, got {self.views_per_step}")
        if not self.backgrounds:
            raise ValueError("backgrounds must name at least one")
        if not 0 <= self.seed < 2**62:
            raise ValueError(f"seed must be 0 to 2^62, got {self.seed}")


def require_prompt(config: RunConfig) -> None:
    """UserError where there is nothing to make."""
    if not config.prompt.strip():
        raise UserError('the prompt is empty: say what to make, as in --prompt "a blue robot"')


def config_to_dict(config: RunConfig) -> dict[str, Any]:
    """Plain nested values, ready for YAML or JSON."""
    return _plain(dataclasses.asdict(config))


def config_from_dict(values: dict[str, Any]) -> RunConfig:
    """The inverse of ``config_to_dict``; absent keys keep their defaults.

    Raises ``UserError`` for unknown keys and for values that the config rejects.
    """
    return _build(RunConfig, values, "")


def with_values(config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """The config with some leaves changed, given by dotted names; UserError where it rejects a value."""
    tree = config_to_dict(config)
    for name, value in values.items():
        *path, leaf = name.split(".")
        branch = tree
        for part in path:
            branch = branch[part]
        branch[leaf] = value
    return config_from_dict(tree)


def differing_keys(left: RunConfig, right: RunConfig) -> list[str]:
    """Dotted names of the leaves in which two configs differ."""
    flat_left, flat_right = flatten(config_to_dict(left)), flatten(config_to_dict(right))
    return [key for key in flat_left if flat_left[key] != flat_right[key]]


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts to one dict with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat.update(flatten(value, f"{name}.") if isinstance(value, dict) else {name: value})
    return flat


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (tuple, list)) else value


def _build(kind: type[Any], values: Any, path: str) -> Any:
    """A config dataclass from plain values, with the path of a bad one in the error."""
    if not isinstance(values, dict):
        raise UserError(f"config: {path.rstrip('.') or 'the file'} must be a mapping, got {type(values).__name__}")
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise UserError(f"config: unknown key {path}{unknown[0]}; known keys there: {', '.join(hints)}")
    built = {name: _coerce(hints[name], value, f"{path}{name}") for name, value in values.items()}
    try:
        return kind(**built)
    except (TypeError, ValueError) as error:
        raise UserError(f"config: {path.rstrip('.') or 'run'}: {error}") from error


def _coerce(hint: Any, value: Any, path: str) -> Any:
    """A plain value as the type that a field declares."""
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast(type, hint), value, f"{path}.")
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _coerce(arguments[0], value, path)
    if origin is Literal:
        if value in arguments:
            return value
    elif origin is tuple:
        if isinstance(value, (list, tuple)) and arguments[-1] is Ellipsis:
            return tuple(_coerce(arguments[0], item, f"{path}[{index}]") for index, item in enumerate(value))
        if isinstance(value, (list, tuple)) and len(value) == len(arguments):
            return tuple(
                _coerce(part, item, f"{path}[{index}]")
                for index, (part, item) in enumerate(zip(arguments, value, strict=True))
            )
    elif origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        return _coerce(next(part for part in arguments if part is not type(None)), value, path)
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif isinstance(value, hint) and (hint is bool) == isinstance(value, bool):
        return value
    accepted = ", ".join(map(repr, arguments)) if origin is Literal else getattr(hint, "__name__", str(hint))
    raise UserError(f"config: {path} is {value!r}; accepted: {accepted}")
