"""Messages between the page's threads and the training thread; neither ever waits for the other's work.

The training thread takes commands at step boundaries. The page gets the latest snapshot only: a new one replaces one
that has not been taken.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sdi_gs.contracts import GuidedViews, Representation

MAX_COMMANDS = 256
"""Largest number of waiting commands, more than people can issue between two steps; further ones are dropped."""


@dataclass(frozen=True)
class Pause:
    """Hold before the next step."""


@dataclass(frozen=True)
class Resume:
    """Continue until the next command."""


@dataclass(frozen=True)
class StepOnce:
    """Take one step, then hold."""


@dataclass(frozen=True)
class StopAndSave:
    """End the run as Ctrl-C does: saved and exported."""


@dataclass(frozen=True)
class ChangeSettings:
    """Continue with changed settings: dotted names of config leaves and their plain values."""

    values: Mapping[str, Any]


Command = Pause | Resume | StepOnce | StopAndSave | ChangeSettings

Phase = Literal["starting", "training", "paused", "saving", "finished", "viewing"]


@dataclass(frozen=True, kw_only=True)
class Status:
    """Where the run stands."""

    phase: Phase
    step: int = 0
    num_steps: int = 0
    timestep: int | None = None
    loss: float | None = None
    contents: str = ""
    """Contents of the scene, such as "6,000 Gaussians"."""
    steps_per_second: float | None = None


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A scene after some step; no later step changes it."""

    step: int
    representation: Representation
    views: GuidedViews | None = None


class Bridge:
    """One training thread on one side, any number of page threads on the other."""

    def __init__(self) -> None:
        self._commands: deque[Command] = deque()
        self._command_came = threading.Condition()
        self._snapshot: Snapshot | None = None
        self._news = threading.Condition()
        self._news_flag = False
        self._watchers = 0

    # The page's side.

    def post(self, command: Command) -> bool:
        """Queue a command for the training thread; return False if the queue is full."""
        with self._command_came:
            if len(self._commands) >= MAX_COMMANDS:
                return False
            self._commands.append(command)
            self._command_came.notify_all()
        return True

    def set_watchers(self, count: int) -> None:
        """Set the number of clients; without clients no snapshot is taken."""
        self._watchers = count
        self.wake()

    def take_snapshot(self) -> Snapshot | None:
        """Return the latest snapshot, once; None if there is no new one."""
        with self._news:
            snapshot, self._snapshot = self._snapshot, None
        return snapshot

    def wake(self) -> None:
        """Wake the page's worker, which then looks for work."""
        with self._news:
            self._news_flag = True
            self._news.notify_all()

    def wait_for_news(self, timeout: float) -> bool:
        """Wait for ``wake`` or a snapshot, at most ``timeout`` seconds; return whether one came."""
        with self._news:
            came = self._news.wait_for(lambda: self._news_flag, timeout)
            self._news_flag = False
        return came

    # The training thread's side.

    def take_commands(self) -> list[Command]:
        """Return the commands posted since the last call, oldest first."""
        if not self._commands:
            return []
        with self._command_came:
            taken = list(self._commands)
            self._commands.clear()
        return taken

    def wait_for_command(self, timeout: float) -> bool:
        """Wait for a command, at most ``timeout`` seconds; return whether one is waiting."""
        with self._command_came:
            return self._command_came.wait_for(lambda: bool(self._commands), timeout)

    @property
    def wants_snapshot(self) -> bool:
        """Whether there are clients and the last snapshot has been taken."""
        return self._watchers > 0 and self._snapshot is None

    def publish(self, make: Callable[[], Snapshot], *, always: bool = False) -> bool:
        """Make and publish a snapshot if one is wanted; return whether it was.

        ``always`` publishes without clients and replaces a snapshot that was not taken: the first and the last state of
        a run must be available to clients that connect later.
        """
        if not (always or self.wants_snapshot):
            return False
        snapshot = make()
        with self._news:
            self._snapshot = snapshot
            self._news_flag = True
            self._news.notify_all()
        return True
