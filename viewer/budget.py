"""How much of the machine's time the viewer takes from a run that trains."""

from __future__ import annotations

IDLE_SHARE = 0.04
"""Time for what nobody is waiting for: streaming splats, refreshing pictures and plots."""
LARGEST_SAVING = 0.1
"""Seconds that may be saved up while there was nothing to do."""


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
