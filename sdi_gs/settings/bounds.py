"""Bounds of settings: declared on a field's annotation, and checked by every config when it is made.

A config declares ``field: Annotated[float, Range(0.0, 1.0)]`` and calls ``check_settings(self)`` in its
``__post_init__``; only rules between fields are written out there.
"""

from __future__ import annotations

import math
import types
import typing
from dataclasses import dataclass
from functools import cache
from numbers import Integral, Real
from typing import Annotated, Any, Literal

from sdi_gs.settings.shown import shown

LONGEST_TEXT = 10_000
"""Characters of a text: prompts, names and paths."""
MOST_MEMBERS = 1000
"""Members of a tuple of any length, at most."""


@dataclass(frozen=True)
class Range:
    """Numbers that a setting accepts; on a tuple, those that each of its members accepts. NaN is never accepted."""

    low: float
    high: float
    low_open: bool = False
    """Whether ``low`` itself is refused."""
    high_open: bool = False
    """Whether ``high`` itself is refused."""
    ordered: bool = False
    """Whether the members of a tuple must not decrease."""
    multiple_of: int = 1
    """Step between accepted integers, counted from 0."""
    zero_means: str = ""
    """Meaning of 0 where that is accepted besides the range; empty where it is not."""

    def __contains__(self, value: float) -> bool:
        if self.zero_means and value == 0:
            return True
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return above and below and (self.multiple_of == 1 or value % self.multiple_of == 0)

    def __str__(self) -> str:
        """Describe the accepted numbers, to stand behind "must be"."""
        low, high = _number(self.low), _number(self.high)
        if self.low_open or self.high_open:
            above, below = "above" if self.low_open else "at least", "below" if self.high_open else "at most"
            text = f"{above} {low} and {below} {high}"
        else:
            text = f"{low} to {high}"
        if self.multiple_of != 1:
            text += f", a multiple of {self.multiple_of}"
        return f"0 ({self.zero_means}) or {text}" if self.zero_means else text


SHARE = Range(0.0, 1.0)
"""Share of a run, of the diffusion's length or of a count; also a probability."""
INTERVAL = Range(1, 10**9)
"""Steps between two events."""
SEED = Range(0, 2**62 - 1)
"""Seed of random draws."""
WEIGHT = Range(0.0, 1e6)
"""Factor of a term of the loss."""
RATE = Range(0.0, 1e3, low_open=True)
"""Step of Adam."""
ADAM_BETAS = Range(0.0, 1.0, high_open=True)
"""Averaging constants of Adam."""


def check_settings(config: Any) -> None:
    """Check every field of a config dataclass against its annotation.

    Numbers must be finite, of the declared type and within the declared ``Range``, Literals one of their values,
    tuples of the declared length. Raises ValueError that names the field, what it accepts and what was given.
    """
    for name, hint in _annotations(type(config)).items():
        _check(name, hint, getattr(config, name), None)


def range_of(kind: type[Any], key: str) -> Range:
    """Return the range that a config class declares for a leaf, given by its dotted name."""
    hint: Any = kind
    for name in key.split("."):
        hint = _annotations(hint)[name]
    found = _declared(hint)
    if found is None:
        raise KeyError(f"{kind.__name__}.{key} declares no range")
    return found


def is_one_of(value: Any, accepted: tuple[Any, ...]) -> bool:
    """Return whether a value is one of the accepted ones and of its type: True equals 1 and is no 1."""
    return any(type(value) is type(known) and value == known for known in accepted)


@cache
def _annotations(kind: type[Any]) -> dict[str, Any]:
    """Return the annotations of a class, resolved once; resolving is slow."""
    return typing.get_type_hints(kind, include_extras=True)


def _declared(hint: Any) -> Range | None:
    """Return the ``Range`` of an annotation, wherever it stands in it."""
    for part in typing.get_args(hint):
        if isinstance(part, Range):
            return part
        found = _declared(part)
        if found is not None:
            return found
    return None


def _check(name: str, hint: Any, value: Any, bounds: Range | None) -> None:
    """Check one value, or a member of a tuple, against its annotation."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        _check(name, arguments[0], value, next((part for part in arguments if isinstance(part, Range)), bounds))
    elif origin in (types.UnionType, typing.Union):
        if value is not None:
            _check(name, next(part for part in arguments if part is not type(None)), value, bounds)
    elif origin is Literal:
        if not is_one_of(value, arguments):
            raise ValueError(f"{name} must be one of {', '.join(map(str, arguments))}, got {shown(value)}")
    elif origin is tuple:
        _check_tuple(name, arguments, value, bounds)
    elif hint is bool:
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be True or False, got {shown(value)}")
    elif hint is str:
        _check_text(name, value)
    elif hint in (int, float):
        _check_number(name, Integral if hint is int else Real, value, bounds)


def _check_tuple(name: str, members: tuple[Any, ...], value: Any, bounds: Range | None) -> None:
    variable = len(members) == 2 and members[1] is Ellipsis
    if not isinstance(value, tuple) or not (variable or len(value) == len(members)):
        raise ValueError(f"{name} must be a tuple of {'any length' if variable else len(members)}, got {shown(value)}")
    if len(value) > MOST_MEMBERS:
        raise ValueError(f"{name} must have at most {MOST_MEMBERS} members, got {len(value)}")
    for index, member in enumerate(value):
        _check(name, members[0] if variable else members[index], member, bounds)
    if bounds is not None and bounds.ordered and list(value) != sorted(value):
        raise ValueError(f"{name} must be an ordered pair within {bounds}, got {' '.join(map(shown, value))}")


def _check_text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a text, got {shown(value)}")
    if len(value) > LONGEST_TEXT:
        raise ValueError(f"{name} must have at most {LONGEST_TEXT} characters, got {len(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        # Bytes of a command line that are no UTF-8 arrive as surrogates, which no file can hold.
        raise ValueError(f"{name} must be UTF-8, got {shown(value)}") from error


def _check_number(name: str, kind: type[Any], value: Any, bounds: Range | None) -> None:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{name} must be a {'whole ' if kind is Integral else ''}number, got {shown(value)}")
    if bounds is None:
        # Raised at the first use of a config whose author forgot it.
        raise TypeError(f"{name} declares no Range")
    # In this order: a whole number may be too long for a float.
    if value not in bounds or not math.isfinite(value):
        raise ValueError(f"{name} must be {bounds}, got {shown(value)}")


def _number(value: float) -> str:
    """Write a bound shortly and exactly."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)
