"""Limits on the time that the viewer takes from training."""

from __future__ import annotations

IDLE_SHARE = 0.04
"""Share of time for background jobs: streaming splats, refreshing pictures and plots."""
TRANSPORT_SHARE = 0.04
"""Share of time reserved for viser's thread while cameras move: it unpacks up to 60 messages a second (measured)."""
LARGEST_SAVING = 0.1
"""Largest credit in seconds, earned while no job runs."""


def shares(training: float) -> tuple[float, float]:
    """Return the shares of time of interactive and of background jobs that leave training the share ``training``."""
    left = 1.0 - training
    idle = min(IDLE_SHARE, 0.5 * left)
    return max(left - idle - TRANSPORT_SHARE, 0.2 * left), idle


class Budget:
    """Seconds earned at a rate and spent on jobs; a job may start while there is no debt.

    Over any period, jobs take at most their rate times the period, plus the job that overdraws. The bound holds however
    much a job slows the training thread down.
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
        """Return the seconds until a job may start; 0 for at once."""
        self._earn(now)
        return max(-self._balance / self._rate, 0.0) if self._rate > 0.0 else 1.0

    def spend(self, seconds: float, *, now: float) -> None:
        """Charge a job that took some seconds and ended now."""
        self._earn(now - seconds)
        # Earn after spending, so that the limit on credit does not cut off what the job's own time earns.
        self._balance -= seconds
        self._earn(now)

    def forgive(self, *, now: float) -> None:
        """Clear the debt; called while nothing trains, when jobs cost no training time."""
        self._earn(now)
        self._balance = max(self._balance, 0.0)

    def _earn(self, now: float) -> None:
        self._balance = min(self._balance + self._rate * (now - self._at), LARGEST_SAVING)
        self._at = now
