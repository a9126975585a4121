"""The state of a batch, from its journal: per row how far it is. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from sdi_gs.batch.journal import (
    EVENT_NAMES,
    JOURNAL,
    BatchHeader,
    EventName,
    RowEvent,
    damaged,
    event_from_json,
    read_lines,
)
from sdi_gs.batch.rows import Row, row_from_json
from sdi_gs.errors import UserError

Status = Literal["waiting", "running", "finished", "failed", "stopped", "lost"]

STATUS_AFTER: Mapping[EventName, Status] = {
    "started": "running",
    "checkpoint": "running",
    "finished": "finished",
    "failed": "failed",
    "lost": "lost",
    "stopped": "stopped",
    "again": "waiting",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class RowState:
    """How far a row is."""

    row: Row
    """The row."""
    status: Status = "waiting"
    """What its last event made of it; "running" also after the whole batch was killed."""
    attempts: int = 0
    """How many times it has been started."""
    step: int = 0
    """Steps of its latest event; for a row that is not finished, those that a checkpoint holds."""
    steps: int | None = None
    """Steps of the whole run; None before a worker has reported them."""
    seconds: float = 0.0
    """Seconds that workers have spent on it, all attempts together."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Scores by name."""
    reason: str | None = None
    """Why it failed, was lost or was stopped; None otherwise."""
    worker: str | None = None
    """Name of the worker that has it or had it last."""
    machine: str | None = None
    """Host name of that worker's machine."""
    device: str | None = None
    """That worker's device."""
    time: str | None = None
    """When its last event happened, ISO 8601, UTC."""
    earlier_seconds: float = 0.0
    """The part of ``seconds`` that belongs to attempts that have ended."""

    def after(self, event: RowEvent) -> RowState:
        """Return the state after an event."""
        # A run that is found finished has no "started" of its own.
        begins = event.event == "started" or (event.attempt or 0) > self.attempts
        earlier = self.seconds if begins else self.earlier_seconds
        return RowState(
            row=self.row,
            status=STATUS_AFTER[event.event],
            attempts=max(self.attempts, event.attempt or self.attempts + begins),
            step=self.step if event.step is None else event.step,
            steps=self.steps if event.steps is None else event.steps,
            seconds=self.seconds if event.seconds is None else earlier + event.seconds,
            scores=self.scores if event.scores is None else event.scores,
            reason=event.reason,
            worker=event.worker or self.worker,
            machine=event.machine or self.machine,
            device=event.device or self.device,
            time=event.time,
            earlier_seconds=earlier,
        )


class BatchState:
    """A batch and how far its rows are; ``apply`` takes further events."""

    def __init__(self, header: BatchHeader, rows: Iterable[Row] = ()) -> None:
        self.header = header
        self._rows = {row.key: RowState(row=row) for row in rows}

    @property
    def rows(self) -> list[RowState]:
        """All rows, in the order of the journal."""
        return list(self._rows.values())

    def __contains__(self, key: object) -> bool:
        return key in self._rows

    def __getitem__(self, key: str) -> RowState:
        """Return the state of the row with this key; KeyError if there is none."""
        return self._rows[key]

    def part(self, keys: Iterable[str]) -> BatchState:
        """Return these rows as they are now, without the others; KeyError for one that is not there."""
        part = BatchState(self.header)
        part._rows = {key: self._rows[key] for key in keys}
        return part

    def add(self, row: Row) -> None:
        """Add a row, or replace what is known of where it stands in the source; its progress stays."""
        known = self._rows.get(row.key)
        self._rows[row.key] = RowState(row=row) if known is None else replace(known, row=row)

    def apply(self, event: RowEvent) -> RowState:
        """Take an event and return the row's new state; KeyError for an unknown row."""
        state = self._rows[event.key] = self._rows[event.key].after(event)
        return state

    def count(self, status: Status) -> int:
        """Return how many rows have a status."""
        return sum(state.status == status for state in self._rows.values())


def replay(out: Path) -> BatchState:
    """Return the state of the batch in the folder ``out``, as its journal tells it.

    Raises UserError if there is no journal, or if it is damaged.
    """
    path = out / JOURNAL
    if not path.is_file():
        raise UserError(f"{out} holds no batch: it has no {JOURNAL}; give the --output-dir of sdi-gs batch")
    state: BatchState | None = None
    for number, values in enumerate(read_lines(path), 1):
        try:
            if state is None:
                state = BatchState(_header_from_json(values))
            elif values["event"] == "row":
                state.add(row_from_json(values))
            elif values["event"] in EVENT_NAMES:
                state.apply(event_from_json(values))
            # Events of later versions are passed over.
        except (KeyError, TypeError):
            raise damaged(path, number) from None
    if state is None:
        raise UserError(f"{path} is empty: the batch never began; remove it, or use another folder")
    return state


def _header_from_json(values: Mapping[str, Any]) -> BatchHeader:
    if values["event"] != "batch":
        raise KeyError("batch")
    return BatchHeader(
        version=values["version"],
        source=values["source"],
        settings=values["settings"],
        rows=values["rows"],
        time=values["time"],
    )
