"""What a doctor's finding looks like."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that is missing or wrong."""

    what: str
    fix: str
    """One line: a command where there is one."""
