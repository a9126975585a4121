"""The members of a JSON object or list, one by one and with their places in the text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_BLANK = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True, kw_only=True)
class Member:
    """One member."""

    name: str | None
    """Its name in an object; None in a list."""
    value: Any
    """Its value."""
    start: int
    """Where its value begins, in characters of the text."""
    line: int
    """The line, from 1 on, in which its value begins."""


def members_of(text: str, start: int = 0) -> Iterator[Member]:
    """Yield the members of the object or list that begins at ``start`` of a valid JSON text, repeated names too."""
    decoder = json.JSONDecoder()
    counted, line = 0, 1
    place = _behind_blanks(text, start)
    is_object = text[place] == "{"
    place = _behind_blanks(text, place + 1)
    while text[place] not in "}]":
        name = None
        if is_object:
            name, place = decoder.raw_decode(text, place)
            # Behind the colon.
            place = _behind_blanks(text, _behind_blanks(text, place) + 1)
        value, end = decoder.raw_decode(text, place)
        line, counted = line + text.count("\n", counted, place), place
        yield Member(name=name, value=value, start=place, line=line)
        place = _behind_blanks(text, end)
        if text[place] == ",":
            place = _behind_blanks(text, place + 1)


def _behind_blanks(text: str, place: int) -> int:
    found = _BLANK.match(text, place)
    assert found is not None
    return found.end()
