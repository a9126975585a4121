"""Ctrl-C, SIGTERM and SIGHUP: an orderly stop; a second Ctrl-C stops at once. Imports no torch."""

from __future__ import annotations

import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType

Handler = Callable[[int, FrameType | None], None]

TERMINATING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""What schedulers, containers and closed terminals send (Slurm, Kubernetes, ``docker stop``, ``timeout``)."""


class StoppedAtOnce(KeyboardInterrupt):
    """The second Ctrl-C; files that were being written are absent or whole."""


class Interrupts:
    """Context in which Ctrl-C, SIGTERM and SIGHUP set ``requested`` instead of ending the program.

    A further Ctrl-C raises ``StoppedAtOnce``; further other signals do nothing, because one stop often arrives as
    several: a closed terminal and its shell both send SIGHUP. Outside the main thread, where Python allows no signal
    handlers, the context has no effect.
    """

    def __init__(self, notice: str) -> None:
        self.requested = False
        self._notice = notice
        self._handlers = _handling(signal.SIGINT, *TERMINATING, handler=self._handle)

    def __enter__(self) -> Interrupts:
        self._handlers.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handlers.__exit__(kind, error, trace)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if signum not in TERMINATING and self.requested:
            # A third one must not interrupt the cleaning up.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            raise StoppedAtOnce
        _leave_closed_terminal(signum)
        if not self.requested:
            self.requested = True
            _print(f"\n{self._notice}\n")


@contextmanager
def terminating_like_ctrl_c() -> Iterator[None]:
    """Context in which SIGTERM and SIGHUP raise KeyboardInterrupt, once, so that everything is cleaned up."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        for number in TERMINATING:
            signal.signal(number, signal.SIG_IGN)
        _leave_closed_terminal(signum)
        raise KeyboardInterrupt

    with _handling(*TERMINATING, handler=interrupt):
        yield


@contextmanager
def _handling(*numbers: int, handler: Handler) -> Iterator[None]:
    """Install a handler in the main thread, except for a SIGHUP that is ignored, which is what nohup is for."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in numbers:
            if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def _leave_closed_terminal(signum: int) -> None:
    """After a SIGHUP, drop what is still printed to a terminal that has gone, where every write would fail."""
    if signum != getattr(signal, "SIGHUP", None):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        with suppress(OSError):
            # A terminal that has gone is a device still, and no terminal any more.
            if stat.S_ISCHR(os.fstat(descriptor).st_mode) and not os.isatty(descriptor):
                os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _print(text: str) -> None:
    # To the descriptor itself: the interrupted code may be inside a buffered write to the same stream.
    with suppress(OSError):
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, text.encode())
