"""The loop of a batch: what the engine reports goes to the scheduler and the journal, its commands to the engine.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from sdi_gs.batch.engine import Engine, EngineEvent, EngineNote, Job, RowProgress, WorkerLost, WorkerReady
from sdi_gs.batch.journal import Journal, RowEvent, now
from sdi_gs.batch.scheduler import Assign, Command, Record, Restart, Retire, Scheduler, StopRow
from sdi_gs.batch.state import BatchState, RowState

POLL_SECONDS = 0.5
"""Longest time between two looks at what was asked for, such as a stop."""

MakeJob = Callable[[RowState, int], Job]
"""Returns the job of a row's attempt of that number."""


class BatchObserver(Protocol):
    """Shows or writes what happens in a batch; the batch waits until it returns."""

    def observe(self, event: EngineEvent | None, state: BatchState) -> None:
        """Take notice of an event, which ``state`` already holds; None where nothing has happened for a while."""
        ...


def drive(
    engine: Engine,
    scheduler: Scheduler,
    state: BatchState,
    journal: Journal,
    make_job: MakeJob,
    *,
    observers: Iterable[BatchObserver] = (),
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Run a started engine until every row has ended, no worker is left, or a stop was asked for and all is saved."""
    batch = _Batch(engine, scheduler, state, journal, make_job, tuple(observers))
    for name in engine.names():
        scheduler.expect(name)
    while not scheduler.is_done:
        if should_stop():
            batch.follow(scheduler.stop())
        if not scheduler.has_hope:
            break
        batch.take(engine.poll(POLL_SECONDS))


class _Batch:
    """What one batch's loop needs."""

    def __init__(
        self,
        engine: Engine,
        scheduler: Scheduler,
        state: BatchState,
        journal: Journal,
        make_job: MakeJob,
        observers: Sequence[BatchObserver],
    ) -> None:
        self._engine = engine
        self._scheduler = scheduler
        self._state = state
        self._journal = journal
        self._make_job = make_job
        self._observers = observers

    def take(self, events: Sequence[EngineEvent]) -> None:
        """Take the events of one poll: the journal is written once for all of them."""
        commands: list[Command] = []
        for event in events:
            match event:
                case WorkerReady():
                    commands += self._scheduler.on_ready(event)
                case WorkerLost():
                    commands += self._scheduler.on_lost(event, time=now())
                case RowEvent():
                    commands += self._scheduler.on_row(event)
                case RowProgress() | EngineNote():
                    pass
        self.follow(commands)
        for event in events:
            # Events of rows have been shown as they were recorded.
            if not isinstance(event, RowEvent):
                self._show(event)
        if not events:
            self._show(None)

    def follow(self, commands: Sequence[Command]) -> None:
        """Do what the scheduler says; what is recorded is on the disk before anything follows from it."""
        recorded = [command.event for command in commands if isinstance(command, Record)]
        self._journal.append(*recorded)
        for event in recorded:
            self._state.apply(event)
            self._show(event)
        for command in commands:
            match command:
                case Assign(worker=worker, key=key, attempt=attempt):
                    self._engine.assign(worker, self._make_job(self._state[key], attempt))
                case StopRow(worker=worker):
                    self._engine.stop_row(worker)
                case Retire(worker=worker):
                    self._engine.retire(worker)
                case Restart(worker=worker):
                    self._engine.restart(worker)
                case Record():
                    pass

    def _show(self, event: EngineEvent | None) -> None:
        for observer in self._observers:
            observer.observe(event, self._state)
