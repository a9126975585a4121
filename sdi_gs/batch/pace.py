"""How often something may be done that costs time while other work goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Clock = Callable[[], float]


class Pace:
    """Spaces repetitions by a shortest time, and by a share of all time that they may take together."""

    def __init__(self, seconds: float, *, share: float, clock: Clock = time.monotonic) -> None:
        """``seconds`` lie between two repetitions at least, and more where one takes longer than its ``share``."""
        self._seconds = seconds
        self._share = share
        self._clock = clock
        self._next = clock()

    @property
    def is_due(self) -> bool:
        """Whether it may be done again."""
        return self._clock() >= self._next

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Do it once inside the context."""
        started = self._clock()
        try:
            yield
        finally:
            ended = self._clock()
            self._next = ended + max(self._seconds, (ended - started) / self._share)
