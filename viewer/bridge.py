"""Exchange between the page's threads and the training thread; neither waits for the other's work.

Commands go to the training thread, which takes them between steps. Snapshots go to the page: only the latest is kept.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sdi_gs.contracts import GuidedViews, Representation

MAX_COMMANDS = 256
"""Most commands queued between two steps, more than a person can send; further ones are dropped."""


@dataclass(frozen=True)
class Pause:
    """Pause before the next step."""


@dataclass(frozen=True)
class Resume:
    """Continue until the next command."""


@dataclass(frozen=True)
class StepOnce:
    """Take one step, then pause."""


@dataclass(frozen=True)
class StopAndSave:
    """End the run as Ctrl-C does: save and export."""


@dataclass(frozen=True)
class ChangeSettings:
    """Continue with other settings."""

    values: Mapping[str, Any]
    """Values by the settings' dotted names in ``RunConfig``."""


@dataclass(frozen=True)
class TrainOn:
    """After the end: take more steps of the same run."""

    steps: int


Command = Pause | Resume | StepOnce | StopAndSave | ChangeSettings | TrainOn

Phase = Literal["starting", "training", "paused", "saving", "finished", "viewing"]


@dataclass(frozen=True, kw_only=True)
class Status:
    """State of a run."""

    phase: Phase
    step: int = 0
    num_steps: int = 0
    num_rounds: int | None = None
    """Rounds so far, each with targets of its own; as many as steps without replay."""
    timestep: int | None = None
    loss: float | None = None
    contents: str = ""
    """Contents of the scene, such as "6,000 Gaussians"."""
    steps_per_second: float | None = None


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A copy of a scene after some step; later steps do not change it."""

    step: int
    representation: Representation
    views: GuidedViews | None = None


class Bridge:
    """Connects one training thread with any number of page threads."""

    def __init__(self) -> None:
        self._commands: deque[Command] = deque()
        self._command_came = threading.Condition()
        self._snapshot: Snapshot | None = None
        self._work = threading.Condition()
        self._has_work = False
        self._watchers = 0

    # Called by the page's threads.

    def post(self, command: Command) -> bool:
        """Queue a command for the training thread; returns False if the queue is full."""
        with self._command_came:
            if len(self._commands) >= MAX_COMMANDS:
                return False
            self._commands.append(command)
            self._command_came.notify_all()
        return True

    def set_watchers(self, count: int) -> None:
        """Set the number of clients; without clients no snapshot is made."""
        self._watchers = count
        self.wake()

    def take_snapshot(self) -> Snapshot | None:
        """Return the latest snapshot once; None if it was taken already."""
        with self._work:
            snapshot, self._snapshot = self._snapshot, None
        return snapshot

    def wake(self) -> None:
        """Wake the page's worker: there may be work."""
        with self._work:
            self._has_work = True
            self._work.notify_all()

    def wait_for_work(self, timeout: float) -> bool:
        """Wait for ``wake`` or a snapshot, at most ``timeout`` seconds; returns whether one came."""
        with self._work:
            came = self._work.wait_for(lambda: self._has_work, timeout)
            self._has_work = False
        return came

    # Called by the training thread.

    def take_commands(self) -> list[Command]:
        """Return the commands posted since the last call, oldest first."""
        if not self._commands:
            return []
        with self._command_came:
            taken = list(self._commands)
            self._commands.clear()
        return taken

    def wait_for_command(self, timeout: float) -> bool:
        """Wait for a command, at most ``timeout`` seconds; returns whether there is one."""
        with self._command_came:
            return self._command_came.wait_for(lambda: bool(self._commands), timeout)

    @property
    def wants_snapshot(self) -> bool:
        """Whether there are clients and the last snapshot was taken."""
        return self._watchers > 0 and self._snapshot is None

    def publish(self, make: Callable[[], Snapshot], *, always: bool = False) -> bool:
        """Make and hand over a snapshot if one is wanted; returns whether that was done.

        ``always`` also replaces a snapshot that was not taken: clients that connect later need a run's first and last.
        """
        if not (always or self.wants_snapshot):
            return False
        snapshot = make()
        with self._work:
            self._snapshot = snapshot
            self._has_work = True
            self._work.notify_all()
        return True
