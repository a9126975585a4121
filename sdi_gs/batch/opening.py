"""Open a batch's folder: begin a new batch there, or go on with the one that it holds. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdi_gs.batch.journal import JOURNAL, BatchHeader, Journal, RowEvent
from sdi_gs.batch.rows import RUNS, Row
from sdi_gs.batch.state import BatchState, RowState, replay
from sdi_gs.errors import UserError
from sdi_gs.files import disk_errors, refuse_impossible
from sdi_gs.runs.folder import RunFolder
from sdi_gs.runs.writer_lock import LOCK, only_writer
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.shown import shown
from sdi_gs.settings.tree import config_to_dict, flatten

_MOST_NAMED = 3
"""Differing settings that a message names."""


@dataclass(frozen=True, kw_only=True)
class OpenBatch:
    """A batch whose folder this process holds."""

    state: BatchState
    """Its rows and how far they are."""
    journal: Journal
    """Where events are appended."""
    todo: tuple[RowState, ...]
    """The rows to make, half-done ones first."""
    skipped: tuple[RowState, ...]
    """Rows that failed before and are not tried again."""
    other_version: str | None
    """The version that began the batch, if it is not this one."""

    def begin(self) -> None:
        """Note that the rows to make wait, those among them that had failed or whose results were removed."""
        events = [
            RowEvent(event="again", key=known.row.key, step=0 if known.status == "finished" else None)
            for known in self.todo
            if known.status in ("failed", "finished")
        ]
        self.journal.append(*events)
        for event in events:
            self.state.apply(event)


@contextmanager
def opened_batch(
    out: Path, header: BatchHeader, rows: Sequence[Row], *, retry_failed: bool = False
) -> Iterator[OpenBatch]:
    """Hold a batch's folder; ``header`` and ``rows`` are those of the command, written if the folder is new.

    Rows that the batch does not have yet are added to it. Raises UserError for a folder that another process makes a
    batch in, that holds another batch, or that holds something else. A UserError inside the context takes back what was
    begun here, unless something came of it.
    """
    was_there = out.exists()
    _make_folder(out)
    try:
        with _held(out, header, rows, retry_failed=retry_failed) as opened:
            yield opened
    finally:
        if not (out / JOURNAL).exists():
            for folder in (out / RUNS,) if was_there else (out / RUNS, out):
                # Not empty, or gone.
                with suppress(OSError):
                    folder.rmdir()


@contextmanager
def _held(out: Path, header: BatchHeader, rows: Sequence[Row], *, retry_failed: bool) -> Iterator[OpenBatch]:
    with only_writer(out), Journal(out / JOURNAL) as journal:
        if (out / JOURNAL).stat().st_size == 0:
            journal.append(header, *rows)
            state, new = BatchState(header, rows), True
        else:
            state, new = replay(out), False
            _require_same(out, state.header, header)
            journal.append(*(row for row in rows if row.key not in state))
            for row in rows:
                state.add(row)
        wanted = [state[row.key] for row in rows]
        todo, skipped = _to_do(wanted, out, retry_failed=retry_failed)
        began_with = state.header.version
        try:
            yield OpenBatch(
                state=state,
                journal=journal,
                todo=todo,
                skipped=skipped,
                other_version=None if new or began_with == header.version else began_with,
            )
        except UserError:
            if (
                new
                and {path.name for path in out.iterdir()} <= {JOURNAL, LOCK, RUNS}
                and not any((out / RUNS).iterdir())
            ):
                (out / JOURNAL).unlink()
            raise


def differing_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the names of the settings in which two batches differ; one that is absent has its default."""
    default = flatten(config_to_dict(RunConfig()))
    names = dict.fromkeys([*before, *now])
    return [name for name in names if before.get(name, default.get(name)) != now.get(name, default.get(name))]


def require_batch_folder(out: Path, option: str = "--output-dir") -> None:
    """Raise UserError for a path that is neither free, nor an empty folder, nor a batch's."""
    refuse_impossible(out)
    with disk_errors(out):
        if (
            out.exists()
            and not (out / JOURNAL).exists()
            and any(path.name not in (LOCK, RUNS) for path in out.iterdir())
        ):
            raise UserError(f"{out} holds something else than a batch: choose another {option}")


def _make_folder(out: Path) -> None:
    """Make the batch's folder, or take one that is empty or holds a batch; UserError for any other."""
    require_batch_folder(out)
    with disk_errors(out):
        (out / RUNS).mkdir(parents=True, exist_ok=True)


def _require_same(out: Path, before: BatchHeader, now: BatchHeader) -> None:
    """Raise UserError if the folder's batch has other settings."""
    names = differing_settings(before.settings, now.settings)
    if not names:
        return
    default = flatten(config_to_dict(RunConfig()))
    told = [
        f"{name} {shown(before.settings.get(name, default.get(name)))}, "
        f"not {shown(now.settings.get(name, default.get(name)))}"
        for name in names[:_MOST_NAMED]
    ]
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    raise UserError(
        f"{out} holds another batch, with {'; '.join(told)}{more}: give the options that it was started with, or "
        "choose another --output-dir"
    )


def _to_do(
    wanted: Sequence[RowState], out: Path, *, retry_failed: bool
) -> tuple[tuple[RowState, ...], tuple[RowState, ...]]:
    """Return the rows to make, and the failed ones that are left as they are."""
    half_done, waiting, again, skipped = [], [], [], []
    for state in wanted:
        match state.status:
            case "running" | "lost" | "stopped":
                half_done.append(state)
            case "waiting":
                waiting.append(state)
            case "failed":
                (again if retry_failed else skipped).append(state)
            case "finished":
                # Whoever removed a result wants it made again.
                if not RunFolder(state.row.folder(out)).summary.is_file():
                    waiting.append(state)
    return (*half_done, *waiting, *again), tuple(skipped)
