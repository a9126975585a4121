"""Ctrl-C: the first one requests an orderly stop, the second one stops at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType, TracebackType


class StoppedAtOnce(KeyboardInterrupt):
    """The second Ctrl-C; files that were being written are absent or whole."""


class Interrupts:
    """Context in which Ctrl-C sets ``requested`` instead of raising; a second one raises ``StoppedAtOnce``.

    Outside the main thread, where Python allows no signal handlers, it has no effect.
    """

    def __init__(self, notice: str) -> None:
        self.requested = False
        self._notice = notice

    def __enter__(self) -> Interrupts:
        self._installed = threading.current_thread() is threading.main_thread()
        if self._installed:
            self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, self._previous)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.requested:
            # A third one must not interrupt the cleaning up.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            raise StoppedAtOnce
        self.requested = True
        # To the descriptor itself: the interrupted code may be inside a buffered write to the same stream.
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"\n{self._notice}\n".encode())
