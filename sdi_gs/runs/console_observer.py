"""The observer that prints a run: progress and messages to stderr, results to stdout."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType

from sdi_gs.console import print_lines, print_path, say
from sdi_gs.contracts import StepReport
from sdi_gs.runs.events import (
    Event,
    Finished,
    Notice,
    Resumed,
    Saving,
    SettingsChanged,
    StageStarted,
    StepDone,
    TierChosen,
    TierLowered,
    TrainingStarted,
)
from sdi_gs.runs.folder import resume_command

LINES_PER_RUN = 10
"""Progress lines of a run whose output is not a terminal, in equal parts of its steps."""
SECONDS_BETWEEN_LINES = 30.0
"""Longest time between two progress lines of a slow run."""
GIB = 2**30

Show = Callable[[StepReport, int], None]
"""Shows a step, out of so many."""


class ConsoleObserver:
    """Prints the events of runs; leaving the context clears an unfinished progress bar."""

    def __init__(self) -> None:
        self._progress = ExitStack()
        self._show: Show = _show_nothing
        self._num_steps = 0

    def __enter__(self) -> ConsoleObserver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_progress()

    def __call__(self, event: Event) -> None:
        # A terminal that was closed, or a reader that has gone, costs the run nothing.
        with suppress(OSError):
            self._print(event)

    def _print(self, event: Event) -> None:
        match event:
            case TrainingStarted():
                self._end_progress()
                self._num_steps = event.num_steps
                self._show = self._progress.enter_context(training_progress(event.num_steps, done=event.step))
            case StepDone():
                self._show(event.report, self._num_steps)
            case SettingsChanged(changed={"extend": [before, after]}):
                self._num_steps += after - before
            case Saving():
                self._end_progress()
                say("saving and exporting")
            case Finished():
                _print_results(event)
            case TierChosen() | StageStarted() | Resumed() | TierLowered() | Notice():
                say(line_of(event))
            case _:
                pass

    def _end_progress(self) -> None:
        self._progress.close()
        self._show = _show_nothing


def line_of(event: TierChosen | StageStarted | Resumed | TierLowered | Notice) -> str:
    """Return the line that reports an event."""
    match event:
        case TierChosen(tier=tier, free_bytes=free):
            if free is None:
                return f"tier {tier.name} as asked: {tier.summary}"
            chosen = f"tier {tier.name} for {free / GIB:.1f} GiB of free memory: {tier.summary}"
            return f"{chosen}; --tier chooses another"
        case StageStarted(number=1, config=config):
            return f"stage 1 of 2: a field, {config.steps} steps"
        case StageStarted(config=config):
            return f"stage 2 of 2: splats from {config.gaussians.init_from}, {config.steps} steps"
        case Resumed(folder=folder, step=step, num_steps=num_steps):
            return f"resuming {folder} after step {step} of {num_steps}"
        case TierLowered(step=step, tier=tier):
            return f"step {step}: out of memory; repeating it on tier {tier.name} ({tier.summary}); nothing is lost"
        case Notice(text=text):
            return text


def _print_results(event: Finished) -> None:
    summary = event.summary
    for path in event.files:
        print_path(path)
    print_lines(f"{event.made}, {summary['wall_seconds']:.1f} s, peak memory {summary['peak_rss_mb']:.0f} MiB")
    if not event.complete:
        say(f"stopped after step {summary['step']} of {summary['steps']}; go on with: {resume_command(event.folder)}")


def _show_nothing(report: StepReport, num_steps: int) -> None:
    """Show nothing: no run is in progress."""


@contextmanager
def training_progress(num_steps: int, *, done: int = 0) -> Iterator[Show]:
    """Yield a function that shows a step: a live bar on a terminal, plain lines now and then elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain_lines(done)
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

        def show(report: StepReport, num_steps: int) -> None:
            status = _status(report, rate.after(report.step))
            progress.update(task, completed=report.step, total=num_steps, status=status)

        yield show


def _plain_lines(done: int) -> Show:
    rate, last_line = _Rate(done), time.perf_counter()

    def show(report: StepReport, num_steps: int) -> None:
        nonlocal last_line
        speed, now = rate.after(report.step), time.perf_counter()
        due = report.step == done + 1 or report.step % max(num_steps // LINES_PER_RUN, 1) == 0
        if not due and now - last_line < SECONDS_BETWEEN_LINES:
            return
        last_line = now
        left = f", {(num_steps - report.step) / speed:.0f} s left" if speed else ""
        say(f"step {report.step}/{num_steps}  {_status(report, speed)}{left}")

    return show


class _Rate:
    """Steps per second since the first step, which may include compilation and does not count."""

    def __init__(self, done: int) -> None:
        self._first = done + 1
        self._since = time.perf_counter()

    def after(self, step: int) -> float | None:
        """Return the mean rate at the end of a step; None at the end of the first."""
        now = time.perf_counter()
        if step <= self._first:
            self._since = now
            return None
        return (step - self._first) / max(now - self._since, 1e-9)


def _status(report: StepReport, speed: float | None) -> str:
    loss = sum(report.losses.values())
    rounds = f"round {report.num_rounds}  " if report.num_rounds < report.step else ""
    return (
        f"{rounds}t {report.timestep}  loss {loss:.4f}  {report.num_points} Gaussians"
        f"  {'-' if speed is None else f'{speed:.1f}'} steps/s"
    )
