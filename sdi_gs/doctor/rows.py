"""The rows that a check yields: a figure each, with its limit and verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Verdict = Literal["pass", "fail", "skipped", "shown"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a check's result."""

    what: str
    """The quantity."""
    verdict: Verdict
    """``shown`` for a figure without a limit, ``skipped`` without a figure."""
    figure: float | None = None
    bound: Literal["at most", "at least"] | None = None
    """Relation of figure and limit; None without a limit."""
    limit: float | None = None
    unit: str = ""
    note: str = ""
    """Why it failed or was skipped, or more about the figure."""
    details: Mapping[str, float] = field(default_factory=dict)
    """Figures of single cases, for the JSON report."""

    def as_json(self) -> dict[str, Any]:
        """Return plain values; NaN and infinity become strings, because JSON has neither."""
        return {
            **asdict(self),
            "figure": _plain(self.figure),
            "limit": _plain(self.limit),
            "details": {name: _plain(value) for name, value in self.details.items()},
        }


def at_most(
    what: str,
    figure: float,
    limit: float,
    *,
    unit: str = "",
    note: str = "",
    details: Mapping[str, float] | None = None,
) -> Row:
    """Return a row that passes if the figure is at most the limit; NaN fails."""
    return Row(
        what=what,
        verdict="pass" if figure <= limit else "fail",
        figure=figure,
        bound="at most",
        limit=limit,
        unit=unit,
        note=note,
        details=details or {},
    )


def at_least(what: str, figure: float, limit: float, *, unit: str = "", note: str = "") -> Row:
    """Return a row that passes if the figure is at least the limit; NaN fails."""
    verdict: Verdict = "pass" if figure >= limit else "fail"
    return Row(what=what, verdict=verdict, figure=figure, bound="at least", limit=limit, unit=unit, note=note)


def shown(what: str, figure: float, *, unit: str, note: str = "") -> Row:
    """Return a row with a figure and no limit."""
    return Row(what=what, verdict="shown", figure=figure, unit=unit, note=note)


def skipped(what: str, reason: str) -> Row:
    """Return a row for a quantity that cannot be checked here; not a failure."""
    return Row(what=what, verdict="skipped", note=reason)


def failed(what: str, reason: str) -> Row:
    """Return a failed row without a figure."""
    return Row(what=what, verdict="fail", note=reason)


def worst(what: str, figures: Mapping[str, float], limit: float, *, unit: str = "", note: str = "") -> Row:
    """Compare the largest of the cases' figures with a limit; NaN counts as the largest."""
    case = max(figures, key=lambda name: math.inf if math.isnan(figures[name]) else figures[name])
    words = f"worst: {case}" if figures[case] else f"in all {len(figures)} cases"
    return at_most(what, figures[case], limit, unit=unit, note="; ".join(filter(None, (words, note))), details=figures)


def _plain(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)
