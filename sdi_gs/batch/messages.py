"""Jobs and events as lines of JSON, between the program and the processes of its workers. Imports no torch."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from sdi_gs.batch.engine import EngineEvent, EngineNote, Job, RowProgress, WorkerLost, WorkerReady
from sdi_gs.batch.journal import RowEvent

_KINDS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (Job, RowEvent, RowProgress, WorkerReady, WorkerLost, EngineNote)
}
STOP = b'{"kind": "stop"}\n'
"""Asks a worker to save its row and to stop with it."""
RETIRE = b'{"kind": "retire"}\n'
"""Lets a worker end."""


def line_of(message: EngineEvent | Job) -> bytes:
    """Return a message as one line."""
    return json.dumps({"kind": type(message).__name__, **asdict(message)}).encode() + b"\n"


def message_of(line: bytes | str) -> EngineEvent | Job | str:
    """Return the message of a line, or the kind of one without content; ValueError for anything else."""
    values = json.loads(line)
    kind = values.pop("kind")
    if kind in ("stop", "retire"):
        return kind
    if kind not in _KINDS:
        raise ValueError(f"unknown kind of message {kind!r}")
    return _KINDS[kind](**values)
