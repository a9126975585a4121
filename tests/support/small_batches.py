"""Rows of eight steps and what makes them, for the tests of batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from small_runs import config

from sdi_gs.batch.driver import BatchObserver, drive
from sdi_gs.batch.engine import Engine, Job
from sdi_gs.batch.journal import BatchHeader
from sdi_gs.batch.opening import OpenBatch, opened_batch
from sdi_gs.batch.rows import Row, new_row
from sdi_gs.batch.scheduler import Scheduler
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tree import config_to_dict, flatten

PROMPTS = ("a blue robot", "a red mushroom", "a green house")


def rows_of(*prompts: str) -> list[Row]:
    return [new_row(index=index, line=index + 1, prompt=prompt, seed=0) for index, prompt in enumerate(prompts)]


def job_of(row: Row, out: Path, *, attempt: int = 1, base: RunConfig | None = None) -> Job:
    settings = config_to_dict(config(prompt="") if base is None else base)
    return Job(key=row.key, folder=str(row.folder(out)), config=settings, given=row.given, attempt=attempt)


def opened(out: Path, rows: Sequence[Row], **options: Any) -> AbstractContextManager[OpenBatch]:
    """The folder of a batch of these rows."""
    settings = flatten(config_to_dict(config(prompt="")))
    return opened_batch(
        out, BatchHeader(version="0", source="list.txt", settings=settings, rows=len(rows)), rows, **options
    )


def driven(
    engine: Engine,
    batch: OpenBatch,
    out: Path,
    *,
    observers: Iterable[BatchObserver] = (),
    should_stop: Callable[[], bool] = lambda: False,
    attempts: int = 3,
) -> Scheduler:
    """Make the rows of a batch with an engine, and close it."""
    scheduler = Scheduler(batch.todo, attempts=attempts)
    try:
        engine.start()
        drive(
            engine,
            scheduler,
            batch.state,
            batch.journal,
            lambda state, attempt: job_of(state.row, out, attempt=attempt),
            observers=observers,
            should_stop=should_stop,
        )
    finally:
        engine.close()
    return scheduler
