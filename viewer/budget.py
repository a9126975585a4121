"""How much of the machine's time the viewer takes from a run that trains."""

from __future__ import annotations

IDLE_SHARE = 0.04
"""Time for what nobody is waiting for: streaming splats, refreshing pictures and plots."""
TRANSPORT_SHARE = 0.04
"""Set aside for viser's own thread while cameras move: it unpacks up to 60 messages a second (measured)."""
LARGEST_SAVING = 0.1
"""Seconds that may be saved up while there was nothing to do."""


def shares(training: float) -> tuple[float, float]:
    """What the jobs that people wait for may take, and what all others may, so that training keeps its share."""
    left = 1.0 - training
    idle = min(IDLE_SHARE, 0.5 * left)
    return max(left - idle - TRANSPORT_SHARE, 0.2 * left), idle


class Budget:
    """Seconds earned at a rate and spent on jobs; a job may start while there is no debt.

    The bound holds whatever a job does to the training thread meanwhile: over any time, jobs take at most their rate of
    it, plus the one that overdraws.
    """

    def __init__(self, rate: float, *, now: float) -> None:
        self._rate = rate
        self._balance = 0.0
        self._at = now

    def set_rate(self, rate: float, *, now: float) -> None:
        """Earn ``rate`` seconds per second from now on."""
        self._earn(now)
        self._rate = rate

    def wait_seconds(self, *, now: float) -> float:
        """Seconds until a job may start; 0 for at once."""
        self._earn(now)
        return max(-self._balance / self._rate, 0.0) if self._rate > 0.0 else 1.0

    def spend(self, seconds: float, *, now: float) -> None:
        """Charge a job that took some seconds and ended now."""
        self._earn(now - seconds)
        # In this order: what the job's own time earns is not cut off.
        self._balance -= seconds
        self._earn(now)

    def forgive(self, *, now: float) -> None:
        """Clear a debt: nothing is training, so nothing was taken from it."""
        self._earn(now)
        self._balance = max(self._balance, 0.0)

    def _earn(self, now: float) -> None:
        self._balance = min(self._balance + self._rate * (now - self._at), LARGEST_SAVING)
        self._at = now
