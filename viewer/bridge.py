"""What the page's threads and the training thread say to each other; neither ever waits for the other's work.

Commands go to the training thread, which takes them at step boundaries. Snapshots and numbers go to the page, the
latest only: one that nobody took is replaced.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sdi_gs.contracts import GuidedViews, Representation

MAX_COMMANDS = 256
"""More than that between two steps is no person; what comes on top is dropped."""


@dataclass(frozen=True)
class Pause:
    """Hold before the next step."""


@dataclass(frozen=True)
class Resume:
    """Go on until told otherwise."""


@dataclass(frozen=True)
class StepOnce:
    """Take one step, then hold."""


@dataclass(frozen=True)
class StopAndSave:
    """End the run as Ctrl-C does: saved and exported."""


@dataclass(frozen=True)
class ChangeSettings:
    """Go on under other settings: dotted names of config leaves and their plain values."""

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
    """What the scene consists of: "6,000 Gaussians"."""
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
        """Ask something of the training thread; False where too much is waiting already."""
        with self._command_came:
            if len(self._commands) >= MAX_COMMANDS:
                return False
            self._commands.append(command)
            self._command_came.notify_all()
        return True

    def set_watchers(self, count: int) -> None:
        """How many clients there are; without one no snapshot is taken."""
        self._watchers = count
        self.wake()

    def take_snapshot(self) -> Snapshot | None:
        """The latest snapshot, once; None where there is nothing new."""
        with self._news:
            snapshot, self._snapshot = self._snapshot, None
        return snapshot

    def wake(self) -> None:
        """Tell the page's worker that something may be to do."""
        with self._news:
            self._news_flag = True
            self._news.notify_all()

    def wait_for_news(self, timeout: float) -> bool:
        """Wait until ``wake`` or a snapshot, at most ``timeout`` seconds; whether one came."""
        with self._news:
            came = self._news.wait_for(lambda: self._news_flag, timeout)
            self._news_flag = False
        return came

    # The training thread's side.

    def take_commands(self) -> list[Command]:
        """All that were posted since the last call, oldest first."""
        if not self._commands:
            return []
        with self._command_came:
            taken = list(self._commands)
            self._commands.clear()
        return taken

    def wait_for_command(self, timeout: float) -> bool:
        """Wait until a command is there, at most ``timeout`` seconds; whether one is."""
        with self._command_came:
            return self._command_came.wait_for(lambda: bool(self._commands), timeout)

    @property
    def wants_snapshot(self) -> bool:
        """Whether somebody looks and the last snapshot has been taken."""
        return self._watchers > 0 and self._snapshot is None

    def publish(self, make: Callable[[], Snapshot], *, always: bool = False) -> bool:
        """Hand over a snapshot if one is wanted, and only then make it; whether it was.

        ``always`` replaces one that nobody took yet: the first and the last state of a run are for whoever comes.
        """
        if not (always or self.wants_snapshot):
            return False
        snapshot = make()
        with self._news:
            self._snapshot = snapshot
            self._news_flag = True
            self._news.notify_all()
        return True
