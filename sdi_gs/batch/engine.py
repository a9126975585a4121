"""What goes between the scheduler and an engine: jobs and requests one way, events the other. Imports no torch.

An engine starts workers, hands rows to them and reports what they do; it decides nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sdi_gs.batch.journal import RowEvent


@dataclass(frozen=True, kw_only=True)
class Job:
    """One attempt at one row, as plain values that can go to another process or machine."""

    key: str
    """The row's key."""
    folder: str
    """The run folder, as the workers see it."""
    config: Mapping[str, Any]
    """Settings that the run starts from, as ``config_to_dict`` returns them."""
    given: Mapping[str, Any]
    """Settings by dotted name that were given, the row's own included; they win over the memory tier."""
    tier: str = "auto"
    """Memory tier; auto goes by the free memory of the worker's card."""
    attempt: int = 1
    """How many times the row has been started, this one included."""
    export: Sequence[str] = ()
    """Formats that the result is also written in."""
    scores: Sequence[str] = ()
    """Names of the metrics to compute when the run is finished."""


@dataclass(frozen=True, kw_only=True)
class WorkerReady:
    """A worker waits for its first row."""

    worker: str
    """Its name, the same after a restart."""
    machine: str
    """Host name of its machine."""
    device: str
    """Its device: cpu, cuda:0."""


@dataclass(frozen=True, kw_only=True)
class WorkerLost:
    """A worker has ended without having been asked to, with all that it had not saved."""

    worker: str
    reason: str
    """Why, in one line."""
    is_final: bool = False
    """Whether it must not be started again: its machine cannot do what is needed."""


@dataclass(frozen=True, kw_only=True)
class RowProgress:
    """How far a worker is with its row, now and then; not part of the journal."""

    key: str
    worker: str
    step: int
    """Steps that are done."""
    steps: int
    """Steps of the whole run."""
    seconds: float
    """Seconds of this attempt so far."""
    steps_per_second: float | None = None
    """Mean rate of this attempt without its first step; None at first."""
    gpu_mib: float | None = None
    """Memory that the worker holds on its card, MiB; None on a CPU."""


@dataclass(frozen=True, kw_only=True)
class EngineNote:
    """One line for the user: a node that was refused, the dashboard's address."""

    text: str


EngineEvent = WorkerReady | WorkerLost | RowEvent | RowProgress | EngineNote


class Engine(Protocol):
    """Starts workers, hands out rows, reports events; every call returns at once."""

    def start(self) -> None:
        """Begin to start the workers; each is reported when it is ready. Raises UserError if there can be none."""
        ...

    def names(self) -> Collection[str]:
        """Return the names of the workers that are being started or live."""
        ...

    def assign(self, worker: str, job: Job) -> None:
        """Give a row to a worker that waits for one."""
        ...

    def stop_row(self, worker: str) -> None:
        """Ask a worker to save its row and to stop with it, which it reports."""
        ...

    def retire(self, worker: str) -> None:
        """Let a worker end that has no row; its end is not reported."""
        ...

    def restart(self, worker: str) -> None:
        """Start a worker again that was lost."""
        ...

    def poll(self, seconds: float) -> list[EngineEvent]:
        """Return what has happened since the last call, waiting for as long as nothing has, at most ``seconds``."""
        ...

    def close(self, *, at_once: bool = False) -> None:
        """End all workers and what else was started; ``at_once`` without waiting for what they do."""
        ...
