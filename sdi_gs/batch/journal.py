"""The journal of a batch: ``batch.jsonl``, one JSON object a line, to which lines are only appended.

Its first line describes the batch, then comes one line per row, then what happened to the rows. Reading all lines
again yields the state of the batch (``sdi_gs.batch.state``). Imports no torch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, get_args

from sdi_gs.batch.rows import Row
from sdi_gs.errors import UserError
from sdi_gs.files import disk_errors, sync_file

JOURNAL = "batch.jsonl"
"""File in the batch's folder."""

EventName = Literal["started", "checkpoint", "finished", "failed", "lost", "stopped", "again"]
"""What can happen to a row: a worker begins with it, saves it, ends it; it cannot be made; its worker is gone; the
batch is stopped while it is half-done and saved; it has ended and is to be made again."""
EVENT_NAMES: tuple[EventName, ...] = get_args(EventName)


def now() -> str:
    """Return the time in ISO 8601, UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True, kw_only=True)
class BatchHeader:
    """The first line: what a batch was started with."""

    version: str
    """Version of the package."""
    source: str
    """Path of the list of prompts."""
    settings: Mapping[str, Any]
    """Settings of all rows by dotted name; a row's own win."""
    rows: int
    """Number of rows."""
    time: str = field(default_factory=now)
    """When the batch was started, ISO 8601, UTC."""

    def as_json(self) -> dict[str, Any]:
        """Return the line's values."""
        return {
            "event": "batch",
            "time": self.time,
            "version": self.version,
            "source": self.source,
            "settings": dict(self.settings),
            "rows": self.rows,
        }


@dataclass(frozen=True, kw_only=True)
class RowEvent:
    """One thing that happened to a row; None for what does not apply."""

    event: EventName
    """What happened."""
    key: str
    """The row's key."""
    time: str = field(default_factory=now)
    """ISO 8601, UTC."""
    worker: str | None = None
    """Name of the worker."""
    machine: str | None = None
    """Host name of the worker's machine."""
    device: str | None = None
    """The worker's device: cpu, cuda:0."""
    attempt: int | None = None
    """How many times the row has been started, this one included."""
    step: int | None = None
    """Steps that are done."""
    steps: int | None = None
    """Steps of the whole run."""
    seconds: float | None = None
    """Seconds of this attempt so far."""
    scores: Mapping[str, float] | None = None
    """Scores by name."""
    reason: str | None = None
    """Why the row failed, was lost or was stopped, in one line."""

    def as_json(self) -> dict[str, Any]:
        """Return the line's values, without those that do not apply."""
        return {name: value for name in _EVENT_FIELDS if (value := getattr(self, name)) is not None}


_EVENT_FIELDS = tuple(item.name for item in fields(RowEvent))
_EVENT_FIELD_SET = frozenset(_EVENT_FIELDS)


def event_from_json(values: Mapping[str, Any]) -> RowEvent:
    """Return the event of ``RowEvent.as_json``'s values, without fields of later versions."""
    return RowEvent(**{name: value for name, value in values.items() if name in _EVENT_FIELD_SET})


class Journal:
    """The journal opened for appending; one process at a time may hold it."""

    def __init__(self, path: Path) -> None:
        """Open the journal at ``path``, or make it, and cut off a last line that a crash left torn."""
        self.path = path
        with disk_errors(path):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            self._cut_torn_line()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def append(self, *entries: BatchHeader | Row | RowEvent) -> None:
        """Append one line per entry by a single write, and flush them to the disk.

        Raises UserError if the disk is full; the journal then ends with its last whole line.
        """
        if not entries:
            return
        lines = "".join(f"{json.dumps(_values(entry), ensure_ascii=False, allow_nan=False)}\n" for entry in entries)
        data = lines.encode("utf-8", "backslashreplace")
        with disk_errors(self.path):
            end = os.fstat(self._descriptor).st_size
            try:
                written = os.write(self._descriptor, data)
                while written < len(data):
                    # A signal or a nearly full disk: the rest, or an error.
                    written += os.write(self._descriptor, data[written:])
            except OSError:
                os.ftruncate(self._descriptor, end)
                raise
            sync_file(self._descriptor)

    def _cut_torn_line(self) -> None:
        end = os.fstat(self._descriptor).st_size
        keep, block = end, 1 << 16
        while keep > 0:
            start = max(keep - block, 0)
            found = os.pread(self._descriptor, keep - start, start).rfind(b"\n")
            if found >= 0:
                keep = start + found + 1
                break
            keep = start
        if keep < end:
            os.ftruncate(self._descriptor, keep)


def read_lines(path: Path) -> Iterable[dict[str, Any]]:
    """Yield the values of the journal's lines, without a torn last one.

    Raises UserError for a file that is missing, unreadable or damaged.
    """
    with disk_errors(path, "read"):
        lines = path.read_bytes().split(b"\n")
    # What follows the last line feed is empty or torn.
    for number, line in enumerate(lines[:-1], 1):
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict) or not isinstance(values.get("event"), str):
            raise damaged(path, number)
        yield values


def damaged(path: Path, number: int) -> UserError:
    """Return the error of a line that is none of a journal."""
    return UserError(f"{path} is damaged (line {number} is no event of a batch): restore it, or use another folder")


def _values(entry: BatchHeader | Row | RowEvent) -> dict[str, Any]:
    return {"event": "row", **entry.as_json()} if isinstance(entry, Row) else entry.as_json()
