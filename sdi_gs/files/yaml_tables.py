"""Tables in YAML that people may have edited: plain values only, in bounded work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from sdi_gs.errors import UserError
from sdi_gs.files import disk_errors

LARGEST_FILE = 2**18
"""Bytes of a table; this program writes some thousand."""
DEEPEST, MOST_EVENTS = 16, 5000
"""Tables in tables, and values and brackets of all of them; settings have 4 and about 400."""


def read_yaml_table(file: Path, *, fix: str = "mend it, or start the run anew") -> dict[Any, Any]:
    """Return a file's mapping; UserError for a file that is missing, too large, or anything else than a mapping.

    Tags of types are refused, as is nesting without end. ``fix`` ends the messages.
    """
    with disk_errors(file, "read"), file.open("rb") as opened:
        text = opened.read(LARGEST_FILE + 1)
    if len(text) > LARGEST_FILE:
        raise UserError(f"{file} has more than {LARGEST_FILE} bytes, which no settings have: restore the file")
    try:
        _require_plain(text)
        table = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        # ValueError for what looks like a date and is none, and for numbers of thousands of digits.
        raise UserError(f"{file} is damaged (not YAML): {fix}") from error
    if not isinstance(table, dict):
        raise UserError(f"{file} holds no settings: {fix}")
    return table


def _require_plain(text: bytes) -> None:
    """Raise ValueError for tags of types, deep nesting and endless lists, before anything is made of them."""
    depth = 0
    for number, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEEPEST or number > MOST_EVENTS or getattr(event, "tag", None) is not None:
            raise ValueError("settings are tables in tables of plain values")
