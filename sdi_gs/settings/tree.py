"""A run's configuration as plain nested values and as dotted names of its leaves."""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from sdi_gs.errors import UserError
from sdi_gs.settings.bounds import MOST_MEMBERS, is_one_of
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.shown import LONGEST, shown


def config_to_dict(config: RunConfig) -> dict[str, Any]:
    """Return plain nested values, ready for YAML or JSON."""
    return _plain(config)


def config_from_dict(values: dict[str, Any]) -> RunConfig:
    """Return the config of ``config_to_dict``'s values; absent keys keep their defaults.

    Raises ``UserError`` for unknown keys and for values that the config rejects.
    """
    return _build(RunConfig, values, "")


def with_values(config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """Return the config with some leaves changed, given by dotted names.

    Raises UserError for a name that is no setting and for a value that the config refuses.
    """
    tree = config_to_dict(config)
    for name, value in values.items():
        *path, leaf = name.split(".")
        branch = tree
        for part in path:
            if not isinstance(branch.get(part), dict):
                groups = ", ".join(key for key, inner in branch.items() if isinstance(inner, dict))
                raise UserError(f"config: unknown key {name}; known groups there: {groups or 'none'}")
            branch = branch[part]
        branch[leaf] = _plain(value)
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
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (tuple, list)) else value


def _build(kind: type[Any], values: Any, path: str) -> Any:
    """A config dataclass from plain values, with the path of a bad one in the error."""
    if not isinstance(values, dict):
        raise UserError(f"config: {path.rstrip('.') or 'the file'} must be a mapping, got {type(values).__name__}")
    hints = typing.get_type_hints(kind)
    for name in values:
        if not isinstance(name, str):
            raise UserError(f"config: {path}{shown(name)} is no text, and so no key; known there: {', '.join(hints)}")
    unknown = sorted(set(values) - set(hints))
    if unknown:
        name = unknown[0] if len(unknown[0]) <= LONGEST and unknown[0].isprintable() else shown(unknown[0])
        raise UserError(f"config: unknown key {path}{name}; known keys there: {', '.join(hints)}")
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
        if is_one_of(value, arguments):
            return value
    elif origin is tuple:
        if isinstance(value, (list, tuple)) and len(value) > MOST_MEMBERS:
            raise UserError(f"config: {path} has {len(value)} members; accepted: at most {MOST_MEMBERS}")
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
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        # No float is as large as some whole numbers; the bounds refuse them as they are.
        return float(value) if abs(value) <= sys.float_info.max else value
    elif isinstance(value, hint) and (hint is bool) == isinstance(value, bool):
        return value
    accepted = ", ".join(map(repr, arguments)) if origin is Literal else getattr(hint, "__name__", str(hint))
    raise UserError(f"config: {path} is {shown(value)}; accepted: {accepted}")
