"""What a check tells: rows of a table, each a figure beside the limit that it has to keep."""

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
    """``shown`` where a figure has no limit, ``skipped`` where there is no figure."""
    figure: float | None = None
    bound: Literal["at most", "at least"] | None = None
    """How the figure has to stand to the limit; None without one."""
    limit: float | None = None
    unit: str = ""
    note: str = ""
    """Why it failed or was skipped, or what the figure is of."""
    details: Mapping[str, float] = field(default_factory=dict)
    """The figures of single cases, for the report."""

    def as_json(self) -> dict[str, Any]:
        """Plain values; JSON has no NaN and no infinity, so that these become words."""
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
    """A row that passes up to a limit; NaN never does."""
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
    """A row that passes from a limit on; NaN never does."""
    verdict: Verdict = "pass" if figure >= limit else "fail"
    return Row(what=what, verdict=verdict, figure=figure, bound="at least", limit=limit, unit=unit, note=note)


def shown(what: str, figure: float, *, unit: str, note: str = "") -> Row:
    """A figure without a limit."""
    return Row(what=what, verdict="shown", figure=figure, unit=unit, note=note)


def skipped(what: str, reason: str) -> Row:
    """What could not be looked at here, which is no failure."""
    return Row(what=what, verdict="skipped", note=reason)


def failed(what: str, reason: str) -> Row:
    """What broke before it gave a figure."""
    return Row(what=what, verdict="fail", note=reason)


def worst(what: str, figures: Mapping[str, float], limit: float, *, unit: str = "", note: str = "") -> Row:
    """The largest of the cases' figures against a limit; a case without a number is worst."""
    case = max(figures, key=lambda name: math.inf if math.isnan(figures[name]) else figures[name])
    words = f"worst: {case}" if figures[case] else f"in all {len(figures)} cases"
    return at_most(what, figures[case], limit, unit=unit, note="; ".join(filter(None, (words, note))), details=figures)


def _plain(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)
