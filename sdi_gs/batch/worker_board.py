"""What each worker of a batch is doing now, from the events of the batch. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, assert_never

from sdi_gs.batch.engine import EngineNote, RowProgress, WorkerLost, WorkerReady
from sdi_gs.batch.journal import RowEvent

if TYPE_CHECKING:
    from sdi_gs.batch.engine import EngineEvent

_MIB_PER_GIB = 1024


@dataclass(frozen=True, kw_only=True)
class Seat:
    """One worker and the row that it has."""

    worker: str
    """Its name."""
    place: str = ""
    """Its machine and device."""
    key: str | None = None
    """The row; None while it has none."""
    step: int = 0
    """Steps that are done."""
    steps: int | None = None
    """Steps of the whole run; None before they are known."""
    steps_per_second: float | None = None
    """Mean rate; None before the second step."""
    gpu_mib: float | None = None
    """Memory that it holds on its card; None on a CPU."""

    @property
    def seconds_left(self) -> float | None:
        """Estimate the seconds until the row is made; None before there is a rate."""
        if not self.steps_per_second or self.steps is None:
            return None
        return (self.steps - self.step) / self.steps_per_second

    @property
    def memory(self) -> str:
        """The memory on the card, for people."""
        return "-" if self.gpu_mib is None else f"{self.gpu_mib / _MIB_PER_GIB:.1f} GiB"


class WorkerBoard:
    """The workers of a batch, in the order in which they came."""

    def __init__(self) -> None:
        self._seats: dict[str, Seat] = {}

    @property
    def seats(self) -> list[Seat]:
        """All workers that live."""
        return list(self._seats.values())

    @property
    def num_busy(self) -> int:
        """Workers that have a row."""
        return sum(seat.key is not None for seat in self._seats.values())

    def take(self, event: EngineEvent | None) -> None:
        """Note what has happened."""
        match event:
            case WorkerReady():
                self._seats[event.worker] = Seat(worker=event.worker, place=_place(event.machine, event.device))
            case WorkerLost():
                self._seats.pop(event.worker, None)
            case RowProgress():
                self._seats[event.worker] = replace(
                    self._seat_of(event.worker),
                    key=event.key,
                    step=event.step,
                    steps=event.steps,
                    steps_per_second=event.steps_per_second,
                    gpu_mib=event.gpu_mib,
                )
            case RowEvent():
                self._take_row(event)
            case EngineNote() | None:
                pass
            case _:
                assert_never(event)

    def _take_row(self, event: RowEvent) -> None:
        if event.worker is None or event.event == "lost":
            return
        seat = self._seat_of(event.worker)
        if event.event in ("started", "checkpoint"):
            step = seat.step if event.step is None else event.step
            known = seat if seat.key == event.key else Seat(worker=seat.worker, place=seat.place)
            self._seats[event.worker] = replace(known, key=event.key, step=step, steps=event.steps or known.steps)
        elif event.worker in self._seats:
            self._seats[event.worker] = Seat(worker=seat.worker, place=seat.place)

    def _seat_of(self, worker: str) -> Seat:
        return self._seats.get(worker) or Seat(worker=worker)


def _place(machine: str, device: str) -> str:
    return f"{machine} {device}".strip()
