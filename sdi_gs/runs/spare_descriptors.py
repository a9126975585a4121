"""Descriptors that a run keeps for saving its work when the process has used up all others."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SPARE = 16
"""More than are open at once while a checkpoint and a line of the log are written."""


@contextmanager
def spare_descriptors(count: int = SPARE) -> Iterator[Callable[[], None]]:
    """Hold descriptors, as many as can be had, until the function that is yielded is called or the context ends."""
    held: list[int] = []
    try:
        for _ in range(count):
            held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        # A run that starts with so few left may still do without.
        pass

    def release() -> None:
        while held:
            os.close(held.pop())

    try:
        yield release
    finally:
        release()
