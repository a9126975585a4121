"""A problem of the toolchain and its fix."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that is missing or wrong."""

    what: str
    fix: str
    """One line; a command if there is one."""
