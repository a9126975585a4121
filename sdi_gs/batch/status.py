"""``sdi-gs batch status``: what a batch's journal says, as lines and as JSON. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from sdi_gs.batch.display import duration, totals_of
from sdi_gs.batch.page import PAGE
from sdi_gs.batch.ranking import Ranking, best_rows, seconds_left
from sdi_gs.batch.state import BatchState, RowState, Status

MOST_LISTED = 20
"""Rows of one kind that are listed; --json has all."""
_LISTED: tuple[tuple[Status, str], ...] = (
    ("running", "running"),
    ("lost", "lost"),
    ("failed", "failed"),
    ("stopped", "stopped"),
)


def status_json(out: Path, state: BatchState, *, running: bool, keep: int, ranking: Ranking) -> dict[str, Any]:
    """Return the whole state of a batch as JSON values; ``running`` if a program works on it now."""
    best = best_rows(state, keep, ranking) if keep else None
    return {
        "folder": str(out),
        "source": state.header.source,
        "version": state.header.version,
        "time": state.header.time,
        "settings": dict(state.header.settings),
        "running": running,
        "counts": {status: state.count(status) for status in get_args(Status)},
        "seconds_left": seconds_left(state, state.count("running")) if running else None,
        "rows": [_row_json(known, out, None if best is None else known.row.key in best) for known in state.rows],
    }


def status_lines(out: Path, state: BatchState, *, running: bool, keep: int, ranking: Ranking) -> Iterator[str]:
    """Yield what a person wants to know: totals, the rows under way and those that failed, the best, what to do."""
    totals = totals_of(state, state.count("running") if running else None)
    begun = f"{state.header.time[:16].replace('T', ' ')} UTC"
    yield f"{state.header.source}, begun {begun}: {totals}"
    for status, title in _LISTED:
        rows = [known for known in state.rows if known.status == status]
        for known in rows[:MOST_LISTED]:
            yield f"{title}: {_described(known)}"
        if len(rows) > MOST_LISTED:
            yield f"and {len(rows) - MOST_LISTED} more {title}; --json lists all"
    if keep:
        best = best_rows(state, keep, ranking)
        chosen = [known for known in state.rows if known.row.key in best]
        for known in chosen[:MOST_LISTED]:
            yield f"best, {ranking.name} {ranking.value(known.scores):.3f}: {known.row.folder(out)}"
        if len(chosen) > MOST_LISTED:
            yield f"and {len(chosen) - MOST_LISTED} more of the best; --json lists all"
    if (out / PAGE).is_file():
        yield f"all runs with their pictures: {out / PAGE}"
    if running:
        yield "a program works on this batch now"
    elif state.count("finished") < len(state.rows):
        yield _way_on(state)


def _way_on(state: BatchState) -> str:
    failed = state.count("failed")
    unfinished = len(state.rows) - state.count("finished") - failed
    parts = []
    if unfinished:
        parts.append("the same command again makes what is left")
    if failed:
        parts.append("--retry-failed tries the failed ones again")
    return f"no program works on it now; {', and '.join(parts)}"


def _described(known: RowState) -> str:
    what = f'"{known.row.prompt}", seed {known.row.seed}'
    steps = f", step {known.step} of {known.steps}" if known.steps and known.status != "failed" else ""
    spent = f", {duration(known.seconds)}" if known.seconds else ""
    where = f", {known.machine} {known.device or ''}".rstrip() if known.machine and known.status == "running" else ""
    return f"{what}{steps}{spent}{where}{f': {known.reason}' if known.reason else ''}"


def _row_json(known: RowState, out: Path, is_best: bool | None) -> dict[str, Any]:
    row = known.row
    values = {
        **row.as_json(),
        "status": known.status,
        "folder": str(row.folder(out)),
        "attempts": known.attempts,
        "step": known.step,
        "steps": known.steps,
        "seconds": round(known.seconds, 3),
        "scores": dict(known.scores),
        "reason": known.reason,
        "machine": known.machine,
        "device": known.device,
    }
    return values if is_best is None else {**values, "best": is_best}
