"""Output for people: one-line messages, names of files, and the progress of a build.

What strangers' files and options contain is shown escaped: control characters would move the cursor, recolour the
terminal or hide text.
"""

from __future__ import annotations

import os
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

_UNSEEN = {"Cc", "Cs", "Zl", "Zp"}
"""Categories of control characters, of bytes that are no UTF-8, and of breaks between lines."""
_TURNING = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
"""Classes of the characters that change the direction of the text behind them."""


def printable(text: str) -> str:
    """Return a text on one line, its control characters escaped as Python writes them."""
    return "".join(_escaped(letter) if _acts(letter) else letter for letter in text)


def say(text: str) -> None:
    """Print one line to stderr, control characters escaped; work goes on where nobody reads it."""
    # None where the program was started without it: `2>&-`. print would take stdout.
    if sys.stderr is None:
        return
    try:
        print(printable(text), file=sys.stderr, flush=True)
    except OSError:
        forget(sys.stderr)


def forget(stream: TextIO | None) -> None:
    """Send what is still to be written to a stream nowhere, so that the end of the program does not try again."""
    if stream is None:
        return
    # Streams of notebooks and tests have no descriptor.
    with suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def print_lines(*lines: str) -> None:
    """Print lines for people to stdout, control characters escaped."""
    print("\n".join(map(printable, lines)), flush=True)


def print_path(path: Path) -> None:
    """Print a path to stdout: as it is for a program that reads it, control characters escaped on a terminal."""
    print(printable(str(path)) if sys.stdout.isatty() else path, flush=True)


def _acts(letter: str) -> bool:
    return unicodedata.category(letter) in _UNSEEN or unicodedata.bidirectional(letter) in _TURNING


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


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
