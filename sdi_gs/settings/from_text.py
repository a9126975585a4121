"""Settings that are written as text, in a column of a table: by dotted name and with the types of a run's settings."""

from __future__ import annotations

import dataclasses
import difflib
import shlex
import types
import typing
from functools import cache
from typing import Annotated, Any, Literal

from sdi_gs.errors import UserError
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.shown import shown

_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")
"""Words for a switch; spreadsheets write TRUE and FALSE."""


@cache
def setting_types() -> dict[str, Any]:
    """Return the type of every setting of a run, by dotted name."""
    return dict(_leaves(RunConfig, ""))


def setting_from_text(name: str, text: str) -> Any:
    """Return the value of a setting that is written as on the command line; the members of a list stand side by side.

    Bounds are not checked. Raises UserError for a text that the setting's type cannot be.
    """
    return _value(setting_types()[name], text.strip(), name)


def similar_setting(name: str, others: typing.Iterable[str] = ()) -> str | None:
    """Return the setting, or one of ``others``, that a name resembles most; None if it resembles none."""
    known = [*others, *setting_types()]
    same_leaf = [setting for setting in known if setting.rpartition(".")[2] == name.replace("-", "_")]
    close = same_leaf or difflib.get_close_matches(name.replace("-", "_"), known, n=1)
    return close[0] if close else None


def _leaves(kind: type[Any], prefix: str) -> typing.Iterator[tuple[str, Any]]:
    for name, hint in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            yield from _leaves(typing.cast(type, hint), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", hint


def _value(hint: Any, text: str, name: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _value(arguments[0], text, name)
    if origin in (types.UnionType, typing.Union):
        if text.lower() == "none":
            return None
        return _value(next(part for part in arguments if part is not type(None)), text, name)
    if origin is tuple:
        return _members(arguments, text, name)
    if origin is Literal:
        found = [choice for choice in arguments if str(choice) == text]
        accepted = ", ".join(map(str, arguments))
    elif hint is bool:
        found = [answer for answer, words in ((True, _TRUE), (False, _FALSE)) if text.lower() in words]
        accepted = "true or false"
    elif hint in (int, float):
        found, accepted = _number(hint, text), "a whole number" if hint is int else "a number"
    else:
        return text
    if not found:
        raise UserError(f"{name} is {shown(text)}; accepted: {accepted}")
    return found[0]


def _members(arguments: tuple[Any, ...], text: str, name: str) -> tuple[Any, ...]:
    try:
        parts = shlex.split(text)
    except ValueError as error:
        raise UserError(f"{name} is {shown(text)}: a quotation mark has no other half") from error
    variable = arguments[-1] is Ellipsis
    if not variable and len(parts) != len(arguments):
        raise UserError(f"{name} is {shown(text)}; accepted: {len(arguments)} values with spaces between them")
    hints = [arguments[0]] * len(parts) if variable else arguments
    return tuple(_value(hint, part, name) for hint, part in zip(hints, parts, strict=True))


def _number(kind: type[int] | type[float], text: str) -> list[int | float]:
    try:
        return [kind(text)]
    except ValueError:
        return []
