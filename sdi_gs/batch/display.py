"""A batch for people who watch it: a live table on a terminal, plain lines elsewhere; both on stderr."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, get_args

from sdi_gs.batch.engine import EngineNote, WorkerLost
from sdi_gs.batch.journal import RowEvent
from sdi_gs.batch.pace import Clock, Pace
from sdi_gs.batch.ranking import seconds_left
from sdi_gs.batch.state import BatchState, Status
from sdi_gs.batch.worker_board import Seat, WorkerBoard
from sdi_gs.console import printable, say

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

    from sdi_gs.batch.driver import BatchObserver
    from sdi_gs.batch.engine import EngineEvent

SECONDS_BETWEEN_LINES = 60.0
"""Between two lines with the totals, where there is no terminal."""
MOST_STEPS = 8
"""Workers whose steps such a line names."""
SECONDS_BETWEEN_TABLES = 0.5
SHARE_OF_TIME = 0.02
"""Largest share of the program's time that showing may take."""
LINES_AROUND = 6
"""Of the terminal, for the table's frame and what is below it."""


@contextmanager
def batch_display(console: Console | None = None) -> Iterator[BatchObserver]:
    """Yield the display that suits stderr, or the ``console``; leaving the context clears a live table."""
    from rich.console import Console
    from rich.live import Live

    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield PlainLines()
        return
    with Live(console=console, transient=True, auto_refresh=False) as live:
        yield LiveTable(live)


class PlainLines:
    """Prints a line for every row that ends, and one with the totals now and then."""

    def __init__(self, *, clock: Clock = time.monotonic) -> None:
        self._board = WorkerBoard()
        self._pace = Pace(SECONDS_BETWEEN_LINES, share=SHARE_OF_TIME, clock=clock)
        self._ended = _EndedRows()

    def observe(self, event: EngineEvent | None, state: BatchState) -> None:
        """Print what there is to print."""
        self._board.take(event)
        line = line_of(event, state, self._ended.after(event, state))
        if line is not None:
            say(line)
        if self._pace.is_due:
            with self._pace.measured():
                say(f"{totals_of(state, self._board.num_busy)}{_steps_of(self._board)}")


class LiveTable:
    """Shows what every worker does, and the totals, in a table that is drawn again in its place."""

    def __init__(self, live: Live, *, clock: Clock = time.monotonic) -> None:
        self._live = live
        self._board = WorkerBoard()
        self._pace = Pace(SECONDS_BETWEEN_TABLES, share=SHARE_OF_TIME, clock=clock)
        self._ended = _EndedRows()

    def observe(self, event: EngineEvent | None, state: BatchState) -> None:
        """Draw the table again if the last one is old enough; what went wrong is printed above it and stays."""
        self._board.take(event)
        line = line_of(event, state, self._ended.after(event, state))
        if line is not None and not (isinstance(event, RowEvent) and event.event == "finished"):
            self._live.console.print(printable(line), markup=False, highlight=False)
        if self._pace.is_due:
            with self._pace.measured():
                most = max(self._live.console.size.height - LINES_AROUND, 1)
                self._live.update(table_of(self._board, state, most=most), refresh=True)


class _EndedRows:
    """Counts the finished and failed rows without looking at all of them at every event."""

    def __init__(self) -> None:
        self._count: int | None = None

    def after(self, event: EngineEvent | None, state: BatchState) -> int:
        """Return the count after an event, which ``state`` already holds."""
        if self._count is None:
            self._count = state.count("finished") + state.count("failed")
        elif isinstance(event, RowEvent) and event.event in ("finished", "failed"):
            self._count += 1
        return self._count


def line_of(event: EngineEvent | None, state: BatchState, ended: int) -> str | None:
    """Return the line that reports an event, after which ``ended`` rows have ended; None for the many small ones."""
    match event:
        case EngineNote(text=text):
            return text
        case WorkerLost(worker=worker, reason=reason):
            return f"worker {worker} is lost: {reason}"
        case RowEvent(event="finished" | "failed" | "stopped" | "lost"):
            known = state[event.key]
            seconds = "" if event.event == "failed" else f", {duration(known.seconds)}"
            after = f" after step {known.step}" if event.event in ("stopped", "lost") else ""
            # The reason of a lost row is that of its worker, which has a line of its own.
            reason = f": {known.reason}" if known.reason and event.event != "lost" else ""
            what = f'"{known.row.prompt}", seed {known.row.seed}'
            return f"{ended}/{len(state.rows)}  {event.event}{after}{seconds}  {what}{reason}"
        case _:
            return None


def totals_of(state: BatchState, num_busy: int | None) -> str:
    """Return the totals of a batch in one line; the time left for so many busy workers, None for no program at all."""
    counts = {status: state.count(status) for status in get_args(Status)}
    parts = [f"{count} {status}" for status, count in counts.items() if count]
    left = None if num_busy is None else seconds_left(state, num_busy)
    about = "" if left is None else f", about {duration(left)} left"
    runs = f"{len(state.rows)} run{'s' * (len(state.rows) != 1)}"
    return f"{runs}: {', '.join(parts) or 'none'}{about}"


def table_of(board: WorkerBoard, state: BatchState, *, most: int) -> RenderableType:
    """Return the workers as a table of at most ``most`` lines, with the totals below it."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(expand=True, pad_edge=False)
    for title in ("worker", "prompt", "step", "steps/s", "GPU memory", "left"):
        is_text = title in ("worker", "prompt")
        justify = "left" if is_text else "right"
        share = 1 if title == "prompt" else None
        table.add_column(title, justify=justify, no_wrap=True, overflow="ellipsis", ratio=share)
    seats = board.seats
    shown = seats if len(seats) <= most else seats[: most - 1]
    for seat in shown:
        table.add_row(*map(Text, _cells(seat, state)))
    lines: list[RenderableType] = [table]
    if len(shown) < len(seats):
        lines.append(Text(f"and {len(seats) - len(shown)} more workers"))
    return Group(*lines, Text(printable(totals_of(state, board.num_busy))))


def duration(seconds: float) -> str:
    """Return a time for people: 9.5 s, 41 s, 12 min, 3.4 h."""
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"


def _steps_of(board: WorkerBoard) -> str:
    """Return how far the first busy workers are."""
    busy = [seat for seat in board.seats if seat.key is not None and seat.steps is not None]
    steps = [f"{seat.step}/{seat.steps}" for seat in busy[:MOST_STEPS]]
    return f"; at step {', '.join(steps)}{', ...' if len(busy) > MOST_STEPS else ''}" if steps else ""


def _cells(seat: Seat, state: BatchState) -> tuple[str, ...]:
    if seat.key is None:
        return f"{seat.worker} {seat.place}".strip(), "", "", "", seat.memory, ""
    row = state[seat.key].row
    rate, left = seat.steps_per_second, seat.seconds_left
    return (
        printable(f"{seat.worker} {seat.place}".strip()),
        printable(f"{row.prompt} (seed {row.seed})"),
        f"{seat.step}/{seat.steps if seat.steps is not None else '-'}",
        "-" if rate is None else f"{rate:.1f}",
        seat.memory,
        "-" if left is None else duration(left),
    )
