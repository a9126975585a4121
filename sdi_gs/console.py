"""Output for people on stderr: one-line messages and the progress of a build."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO


def say(text: str) -> None:
    """Print one line to stderr; work goes on where nobody reads it."""
    # None where the program was started without it: `2>&-`. print would take stdout.
    if sys.stderr is None:
        return
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        forget(sys.stderr)


def forget(stream: TextIO | None) -> None:
    """Send what is still to be written to a stream nowhere, so that the end of the program does not try again."""
    if stream is None:
        return
    # Streams of notebooks and tests have no descriptor.
    with suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


@contextmanager
def build_progress() -> Iterator[Callable[[int, int], None]]:
    """Yield a function of the files compiled and in total: a live bar on a terminal, plain lines elsewhere."""
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
