"""What a person sees: one-line messages and the progress of a run. Errors and progress go to stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdi_gs.contracts import StepReport

LINES_PER_RUN = 10
"""Progress lines of a run whose output is not a terminal, in equal parts of its steps."""
SECONDS_BETWEEN_LINES = 30.0
"""A slow run says more often than that where it is."""

Show = Callable[["StepReport"], None]


def say(text: str) -> None:
    """One line on stderr."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def training_progress(num_steps: int, *, done: int = 0) -> Iterator[Show]:
    """Yield a function to be told of every step: a live bar on a terminal, plain lines now and then elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain_lines(num_steps, done)
        return
    progress = Progress(
        TextColumn("step"),
        MofNCompleteColumn(),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[status]}"),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    with progress:
        task = progress.add_task("", total=num_steps, completed=done, status="")
        rate = _Rate(done)

        def show(report: StepReport) -> None:
            progress.update(task, completed=report.step, status=_status(report, rate.after(report.step)))

        yield show


def _plain_lines(num_steps: int, done: int) -> Show:
    rate, last_line = _Rate(done), time.perf_counter()

    def show(report: StepReport) -> None:
        nonlocal last_line
        speed, now = rate.after(report.step), time.perf_counter()
        due = report.step == done + 1 or report.step % max(num_steps // LINES_PER_RUN, 1) == 0
        if not due and now - last_line < SECONDS_BETWEEN_LINES:
            return
        last_line = now
        left = f", {(num_steps - report.step) / speed:.0f} s left" if speed else ""
        say(f"step {report.step}/{num_steps}  {_status(report, speed)}{left}")

    return show


@contextmanager
def build_progress() -> Iterator[Callable[[int, int], None]]:
    """Yield a function to be told of a build's files, done and in total: a live bar on a terminal, lines elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console, started = Console(stderr=True), time.perf_counter()
    if not console.is_terminal:
        yield lambda done, total: say(f"compiling gsplat  {done}/{total} files  {time.perf_counter() - started:.0f} s")
        return
    columns = (TextColumn("compiling gsplat"), MofNCompleteColumn(), TextColumn("files"), BarColumn(bar_width=None))
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


class _Rate:
    """Steps per second since the first step, which may have compiled kernels and is left out."""

    def __init__(self, done: int) -> None:
        self._first = done + 1
        self._since = time.perf_counter()

    def after(self, step: int) -> float | None:
        """The mean rate at the end of a step; None at the end of the first."""
        now = time.perf_counter()
        if step <= self._first:
            self._since = now
            return None
        return (step - self._first) / max(now - self._since, 1e-9)


def _status(report: StepReport, speed: float | None) -> str:
    loss = sum(report.losses.values())
    return (
        f"t {report.timestep}  loss {loss:.4f}  {report.num_points} Gaussians"
        f"  {'-' if speed is None else f'{speed:.1f}'} steps/s"
    )
