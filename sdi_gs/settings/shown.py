"""Values as messages show them: on one line, short, whatever they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

LONGEST = 80
"""Characters of a value in a message."""

_MOST_ITEMS = 3
_LARGEST_WRITTEN = 10**40


def shown(value: Any) -> str:
    """Return a value as Python would write it, cut after ``LONGEST`` characters.

    The work is bounded as well: of long texts, large numbers and nested tables only the beginning is looked at.
    """
    text = _written(value, depth=2)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _written(value: Any, *, depth: int) -> str:
    match value:
        case bool() | float() | None:
            return repr(value)
        case int():
            # Python refuses to write whole numbers of more than 4300 digits.
            return repr(value) if abs(value) < _LARGEST_WRITTEN else f"a number of {value.bit_length()} bits"
        case str() | bytes():
            return repr(value[:LONGEST])
        case Mapping():
            pairs = (f"{_written(key, depth=0)}: {_written(item, depth=depth - 1)}" for key, item in value.items())
            return f"{{{_some(pairs, len(value), depth)}}}"
        case Sequence() | Set():
            items = _some((_written(item, depth=depth - 1) for item in value), len(value), depth)
            return f"({items}{',' * (len(value) == 1)})" if isinstance(value, tuple) else f"[{items}]"
        case _:
            return repr(value)


def _some(texts: Any, count: int, depth: int) -> str:
    """Return the first texts, joined; none at all below the deepest level."""
    if depth <= 0:
        return "..." if count else ""
    first = [text for text, _ in zip(texts, range(_MOST_ITEMS), strict=False)]
    return ", ".join([*first, "..."] if count > len(first) else first)
