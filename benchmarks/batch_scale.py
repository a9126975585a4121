"""A batch of many rows on many workers, simulated: the real scheduler, loop, journal and page; workers that only sleep.

Time is virtual, but what the program itself computes passes in it as measured, so that a slow scheduler shows as idle
workers. Part of ``benchmarks/batch.py``.
"""

from __future__ import annotations

import heapq
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from sdi_gs.batch.driver import drive
from sdi_gs.batch.engine import EngineEvent, Job, RowProgress, WorkerLost, WorkerReady
from sdi_gs.batch.journal import BatchHeader, EventName, RowEvent
from sdi_gs.batch.opening import opened_batch
from sdi_gs.batch.page import PageWriter
from sdi_gs.batch.rows import Row, new_row
from sdi_gs.batch.scheduler import Scheduler
from sdi_gs.batch.state import replay

FAILURES, DEATHS = 0.02, 0.01
"""Shares of the rows that fail, and in which the worker dies."""
RESTART_SECONDS = 30.0
STEPS = 1000
CHECKPOINTS = 4


@dataclass(kw_only=True)
class _Sleeper:
    """A simulated worker."""

    attempt: int = 0
    """Counts its starts and rows: events of an earlier one are void."""
    idle_since: float | None = None
    idle_seconds: float = 0.0


@dataclass
class SleepingEngine:
    """An ``Engine`` whose workers sleep in virtual time."""

    num_workers: int
    seed: int
    mean_seconds: float
    now: float = 0.0
    """Virtual seconds since the start."""
    last_row_given: float = 0.0
    _events: list[tuple[float, int, str, int, EngineEvent]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)
        self._order = count()
        self._workers = {f"sleeper-{index}": _Sleeper() for index in range(self.num_workers)}
        self._used = time.process_time()

    def start(self) -> None:
        """Start all workers, each within half a minute."""
        for name in self._workers:
            self._be_ready(name, self._rng.uniform(10.0, RESTART_SECONDS))

    def names(self) -> list[str]:
        """Return the names of all workers."""
        return list(self._workers)

    def assign(self, worker: str, job: Job) -> None:
        """Plan what happens to a row."""
        sleeper, rng = self._workers[worker], self._rng
        self._pass()
        assert sleeper.idle_since is not None
        sleeper.idle_seconds += self.now - sleeper.idle_since
        sleeper.idle_since, sleeper.attempt = None, sleeper.attempt + 1
        self.last_row_given = self.now
        seconds = rng.lognormvariate(0.0, 0.5) * self.mean_seconds
        draw, lasts = rng.random(), 1.0
        if draw < FAILURES + DEATHS:
            lasts = rng.random()
        for part in range(CHECKPOINTS + 1):
            share = part / CHECKPOINTS
            if share <= lasts:
                self._row_event("started" if part == 0 else "checkpoint", worker, job, seconds, share)
                progress = RowProgress(
                    key=job.key, worker=worker, step=int(share * STEPS), steps=STEPS, seconds=share * seconds
                )
                self._plan(share * seconds, worker, progress)
        if draw < DEATHS:
            self._plan(lasts * seconds, worker, WorkerLost(worker=worker, reason="killed by the benchmark"))
        else:
            self._row_event("failed" if draw < DEATHS + FAILURES else "finished", worker, job, seconds, lasts)

    def stop_row(self, worker: str) -> None:
        """Do nothing: this batch is not stopped."""

    def retire(self, worker: str) -> None:
        """Let a worker end."""
        self._workers[worker].attempt += 1

    def restart(self, worker: str) -> None:
        """Start a worker again."""
        self._be_ready(worker, RESTART_SECONDS)

    def poll(self, seconds: float) -> list[EngineEvent]:
        """Return the next event and all others of the same moment; those that the program was too slow for as well."""
        self._pass()
        events: list[EngineEvent] = []
        while self._events and (not events or self._events[0][0] <= self.now):
            due, _, name, attempt, event = heapq.heappop(self._events)
            sleeper = self._workers[name]
            if attempt != sleeper.attempt:
                continue
            self.now = max(self.now, due)
            is_free = isinstance(event, WorkerReady) or getattr(event, "event", "") in ("finished", "failed")
            if is_free:
                # From when it was free, not from when that was noticed.
                sleeper.idle_since = due
            elif isinstance(event, WorkerLost):
                sleeper.attempt += 1
            events.append(event)
        return events

    def close(self, *, at_once: bool = False) -> None:
        """Do nothing."""

    def idle_share(self) -> float:
        """Return the share of the workers' time without a row, restarts left out, until the last row was given."""
        return sum(sleeper.idle_seconds for sleeper in self._workers.values()) / (
            self.num_workers * max(self.last_row_given, 1e-9)
        )

    def _pass(self) -> None:
        """Let the time pass that the program has used since the last call."""
        used = time.process_time()
        self.now, self._used = self.now + used - self._used, used

    def _be_ready(self, name: str, seconds: float) -> None:
        self._plan(seconds, name, WorkerReady(worker=name, machine="simulated", device="cpu"))

    def _row_event(self, what: EventName, worker: str, job: Job, seconds: float, share: float) -> None:
        event = RowEvent(
            event=what,
            key=job.key,
            worker=worker,
            machine="simulated",
            device="cpu",
            attempt=job.attempt,
            step=int(share * STEPS),
            steps=STEPS,
            seconds=share * seconds,
            scores={"judge_class": 1.0} if what == "finished" else None,
            reason="the benchmark's failure" if what == "failed" else None,
        )
        self._plan(share * seconds, worker, event)

    def _plan(self, seconds: float, name: str, event: EngineEvent) -> None:
        attempt = self._workers[name].attempt
        heapq.heappush(self._events, (self.now + seconds, next(self._order), name, attempt, event))


def simulated(num_rows: int, num_workers: int, *, seed: int = 0, mean_seconds: float = 60.0) -> dict[str, Any]:
    """Run a simulated batch and return its figures."""
    rows: list[Row] = list(_rows(num_rows))
    header = BatchHeader(version="0", source="simulated", settings={}, rows=num_rows)
    before = _rss_mib()
    with tempfile.TemporaryDirectory() as scratch, opened_batch(Path(scratch), header, rows) as opened:
        engine = SleepingEngine(num_workers, seed, mean_seconds)
        scheduler = Scheduler(opened.todo)
        used = time.process_time()
        engine.start()
        drive(engine, scheduler, opened.state, opened.journal, _job_of)
        used = time.process_time() - used
        memory = _rss_mib() - before
        started = time.process_time()
        state = replay(Path(scratch))
        replay_seconds = time.process_time() - started
        started = time.process_time()
        page = PageWriter(Path(scratch))
        page.write(opened.state, running=False)
        page_seconds, page_bytes = time.process_time() - started, page.path.stat().st_size
    ended = [known.status for known in state.rows]
    return {
        "rows": num_rows,
        "workers": num_workers,
        "finished": ended.count("finished"),
        "failed": ended.count("failed"),
        "restarts": sum(known.attempts - 1 for known in state.rows),
        "driver_ms_per_row": 1000.0 * used / num_rows,
        "driver_mib": memory,
        "idle_share": engine.idle_share(),
        "replay_seconds": replay_seconds,
        "page_seconds": page_seconds,
        "page_bytes": page_bytes,
        "virtual_hours": engine.now / 3600.0,
    }


def _rows(num_rows: int) -> Iterator[Row]:
    for index in range(num_rows):
        yield new_row(index=index, line=index + 1, prompt=f"a blue robot, the {index}th", seed=index % 3)


def _job_of(state: Any, attempt: int) -> Job:
    return Job(key=state.row.key, folder="", config={}, given={}, attempt=attempt)


def _rss_mib() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20
