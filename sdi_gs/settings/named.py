"""Rows of a table by their name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from sdi_gs.errors import UserError


class Named(Protocol):
    """A row with a name of its own."""

    @property
    def name(self) -> str: ...


Row = TypeVar("Row", bound=Named)


def row_named(rows: Iterable[Row], name: str, *, what: str) -> Row:
    """Return the row with this name; UserError, which calls the rows ``what``, for an unknown one."""
    rows = tuple(rows)
    for row in rows:
        if row.name == name:
            return row
    raise UserError(f"unknown {what} {name}: choose one of {', '.join(row.name for row in rows)}")
