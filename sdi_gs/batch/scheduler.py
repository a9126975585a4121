"""Who makes which row when: events of the engine in, commands for it out.

Pure: no processes, no clock, no files. Rows wait in one queue from which every free worker takes the next one. The row
of a lost worker goes back to the front of the queue; a row that fails does so alone. Imports no torch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from sdi_gs.batch.engine import WorkerLost, WorkerReady
from sdi_gs.batch.journal import EventName, RowEvent
from sdi_gs.batch.state import RowState

WORKER_DEATHS = 3
"""Times in a row that a worker may die without having finished a row before it is given up."""

_ENDS = ("finished", "failed", "stopped")


@dataclass(frozen=True, kw_only=True)
class Assign:
    """Give a row to a worker."""

    worker: str
    key: str
    attempt: int


@dataclass(frozen=True, kw_only=True)
class StopRow:
    """Ask a worker to save its row and to stop with it."""

    worker: str


@dataclass(frozen=True, kw_only=True)
class Retire:
    """Let a worker end: there is nothing left for it."""

    worker: str


@dataclass(frozen=True, kw_only=True)
class Restart:
    """Start a lost worker again."""

    worker: str


@dataclass(frozen=True, kw_only=True)
class Record:
    """Write an event into the journal."""

    event: RowEvent


Command = Assign | StopRow | Retire | Restart | Record


@dataclass(kw_only=True)
class _Worker:
    """What the scheduler knows of a worker."""

    machine: str
    device: str
    row: str | None = None
    """Key of the row that it has."""
    deaths: int = 0
    """Times that it died since it last finished a row."""
    is_alive: bool = True
    is_leaving: bool = False
    """Whether it has stopped by itself and is about to end."""
    is_retired: bool = False


class Scheduler:
    """Hands out rows until all are finished or failed, or until it is stopped."""

    def __init__(self, rows: Iterable[RowState], *, attempts: int = 3, max_failures: int | None = None) -> None:
        """Plan to make the rows in this order.

        A row whose worker is lost ``attempts`` times fails; after ``max_failures`` failed rows, None for any number,
        all others are stopped.
        """
        self._queue = deque(state.row.key for state in rows)
        self._started = {state.row.key: state.attempts for state in rows}
        self._losses: dict[str, int] = {}
        self._attempts = attempts
        self._max_failures = max_failures
        self._workers: dict[str, _Worker] = {}
        self._expected: set[str] = set()
        self._idle: dict[str, None] = {}
        """Workers without a row, longest idle first."""
        self._running = 0
        self.is_stopping = False
        """Whether no further row is handed out."""
        self.finished = 0
        """Rows finished since the start."""
        self.failed = 0
        """Rows failed since the start."""
        self.given_up: dict[str, str] = {}
        """Workers that are not started again, with the reason of their last end."""

    @property
    def num_waiting(self) -> int:
        """Rows that no worker has."""
        return len(self._queue)

    @property
    def num_running(self) -> int:
        """Rows that workers have."""
        return self._running

    @property
    def is_done(self) -> bool:
        """Whether no worker has a row and none will get one, unless a new worker comes."""
        return self.num_running == 0 and (self.is_stopping or not self._queue)

    @property
    def has_hope(self) -> bool:
        """Whether a worker lives or is being started, so that the rows that wait can be made."""
        return any(worker.is_alive and not worker.is_retired for worker in self._workers.values()) or bool(
            self._expected
        )

    def expect(self, worker: str) -> None:
        """Note that a worker is being started, which has not reported yet."""
        self._expected.add(worker)

    def on_ready(self, event: WorkerReady) -> list[Command]:
        """Take a worker that waits for a row, for the first time or again after a restart."""
        self._expected.discard(event.worker)
        before = self._workers.get(event.worker)
        if before is not None and before.is_alive:
            return []
        deaths = 0 if before is None else before.deaths
        self._workers[event.worker] = _Worker(machine=event.machine, device=event.device, deaths=deaths)
        self._idle[event.worker] = None
        return self._for_idle()

    def on_row(self, event: RowEvent) -> list[Command]:
        """Take what a worker reports of its row; a report on a row that it does not have any more is dropped."""
        worker = self._workers.get(event.worker or "")
        if worker is None or worker.row != event.key or not worker.is_alive:
            return []
        commands: list[Command] = [Record(event=event)]
        if event.event not in _ENDS:
            return commands
        self._running -= 1
        worker.row, worker.deaths = None, 0
        self._idle[event.worker or ""] = None
        if event.event == "finished":
            self.finished += 1
        elif event.event == "failed":
            commands += self._fail()
        elif not self.is_stopping:
            # The worker had its own reason to stop, such as a signal, and ends: the row goes on elsewhere.
            worker.is_leaving = True
            self._queue.appendleft(event.key)
        return commands + self._for_idle()

    def on_lost(self, event: WorkerLost, *, time: str) -> list[Command]:
        """Take the loss of a worker: its row goes to another one, and it is started again if there is work for it."""
        self._expected.discard(event.worker)
        worker = self._workers.setdefault(event.worker, _Worker(machine="", device=""))
        if worker.is_retired or event.worker in self.given_up:
            return []
        worker.is_alive, key, worker.row = False, worker.row, None
        worker.deaths += 1
        commands: list[Command] = []
        if key is not None:
            self._running -= 1
            commands += self._lose(key, worker, event, time)
        if event.is_final:
            self.given_up[event.worker] = event.reason
        elif self._queue and not self.is_stopping:
            if worker.deaths < WORKER_DEATHS:
                self._expected.add(event.worker)
                commands.append(Restart(worker=event.worker))
            else:
                self.given_up[event.worker] = event.reason
        return commands + self._for_idle()

    def stop(self) -> list[Command]:
        """Hand out no further row; workers save what they have and stop."""
        if self.is_stopping:
            return []
        self.is_stopping = True
        busy = [StopRow(worker=name) for name, worker in self._workers.items() if worker.row is not None]
        return [*busy, *self._for_idle()]

    def _lose(self, key: str, worker: _Worker, event: WorkerLost, time: str) -> list[Command]:
        """Put the row of a lost worker back, or fail it if that has happened too often."""
        losses = self._losses[key] = self._losses.get(key, 0) + 1

        def happened(what: EventName, reason: str) -> Record:
            return Record(
                event=RowEvent(
                    event=what,
                    key=key,
                    time=time,
                    worker=event.worker,
                    machine=worker.machine,
                    device=worker.device,
                    reason=reason,
                )
            )

        commands: list[Command] = [happened("lost", event.reason)]
        if losses < self._attempts:
            self._queue.appendleft(key)
            return commands
        often = f"{losses} times while it had this row, last" if losses > 1 else "while it had this row"
        reason = f"its worker ended {often}: {event.reason}"
        commands.append(happened("failed", reason))
        return commands + self._fail()

    def _fail(self) -> list[Command]:
        self.failed += 1
        return self.stop() if self._max_failures is not None and self.failed >= self._max_failures else []

    def _for_idle(self) -> list[Command]:
        """Hand rows to the workers that have none; let them all end when no row is left that could come back."""
        idle = [name for name in self._idle if self._can_work(name)]
        commands: list[Command] = []
        while idle and self._queue and not self.is_stopping:
            commands.append(self._assign(idle.pop(0)))
        if self.is_stopping or self.num_running == 0:
            for name in idle:
                self._workers[name].is_retired = True
                commands.append(Retire(worker=name))
            idle = []
        self._idle = dict.fromkeys(idle)
        return commands

    def _can_work(self, name: str) -> bool:
        worker = self._workers[name]
        return worker.is_alive and not worker.is_leaving

    def _assign(self, name: str) -> Assign:
        key = self._queue.popleft()
        self._workers[name].row = key
        self._running += 1
        self._started[key] += 1
        return Assign(worker=name, key=key, attempt=self._started[key])
