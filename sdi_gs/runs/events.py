"""Events of a run, as data.

A run emits events in the order in which things happen; observers print them, show them or count them. An event holds
numbers, names and paths, never the trainer: no event changes the run. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tiers import Tier

if TYPE_CHECKING:
    from sdi_gs.contracts import StepReport


@dataclass(frozen=True, kw_only=True)
class TierChosen:
    """The memory tier of a run is settled."""

    tier: Tier
    free_bytes: int | None
    """Free memory of the card that it was chosen for; None for a tier that was named."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """Settings and device are settled; nothing is loaded yet."""

    config: RunConfig
    device: str


@dataclass(frozen=True, kw_only=True)
class StageStarted:
    """One of the two stages of a two-stage run begins."""

    number: int
    config: RunConfig


@dataclass(frozen=True, kw_only=True)
class Resumed:
    """A stopped run is loaded at its latest checkpoint."""

    folder: Path
    step: int
    """Steps that are done."""
    num_steps: int


@dataclass(frozen=True, kw_only=True)
class TrainingStarted:
    """The loop begins."""

    step: int
    """Steps that are done."""
    num_steps: int


@dataclass(frozen=True, kw_only=True)
class PreviewSaved:
    """A preview picture is on the disk."""

    step: int
    path: Path


@dataclass(frozen=True, kw_only=True)
class CheckpointSaved:
    """A checkpoint is on the disk."""

    step: int
    path: Path


@dataclass(frozen=True, kw_only=True)
class StepDone:
    """A step is done and logged, and its preview and its checkpoint, if it has any, are saved."""

    report: StepReport


@dataclass(frozen=True, kw_only=True)
class SettingsChanged:
    """Settings changed while the run trains; they hold from the next step on."""

    step: int
    """The last step before the change."""
    changed: Mapping[str, list[Any]]
    """Dotted name: [before, after]."""


@dataclass(frozen=True, kw_only=True)
class TierLowered:
    """A step ran out of memory and is repeated on a lower memory tier."""

    step: int
    """The step that is repeated."""
    tier: Tier


@dataclass(frozen=True, kw_only=True)
class Saving:
    """The loop has ended; checkpoint, exports and summary are being written."""

    step: int


@dataclass(frozen=True, kw_only=True)
class Finished:
    """All files of the run are written."""

    folder: Path
    files: tuple[Path, ...]
    """The exports and the summary."""
    made: str
    """What was made, in a few words."""
    summary: Mapping[str, Any]
    """The content of ``summary.json``."""
    complete: bool
    """False for a run that was stopped before its last step."""


@dataclass(frozen=True, kw_only=True)
class Notice:
    """One line for the user."""

    text: str


Event = (
    TierChosen
    | Planned
    | StageStarted
    | Resumed
    | TrainingStarted
    | PreviewSaved
    | CheckpointSaved
    | StepDone
    | SettingsChanged
    | TierLowered
    | Saving
    | Finished
    | Notice
)
Observer = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Observe nothing."""


def broadcast(observers: Iterable[Observer]) -> Observer:
    """Return one observer that passes every event to all of ``observers``, in their order."""
    everyone = tuple(observers)

    def emit(event: Event) -> None:
        for observe in everyone:
            observe(event)

    return emit
