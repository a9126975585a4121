"""The share of the machine's time that the viewer takes from a training run."""

from __future__ import annotations

IDLE_SHARE = 0.04
"""Share for jobs that no person waits for: streaming splats, refreshing pictures and plots."""
TRANSPORT_SHARE = 0.04
"""Share of viser's own thread while cameras move: it unpacks up to 60 messages a second (measured)."""
LARGEST_SAVING = 0.1
"""Most seconds that a budget accumulates while there is no work."""


def shares(training: float) -> tuple[float, float]:
    """Return the shares of interactive and of idle jobs for a training that keeps the share ``training``."""
    left = 1.0 - training
    idle = min(IDLE_SHARE, 0.5 * left)
    return max(left - idle - TRANSPORT_SHARE, 0.2 * left), idle


class Budget:
    """Seconds earned at a rate and spent on jobs; a job may start while there is no debt.

    Over any period jobs take at most their rate of it, plus the one job that overdraws, however long single jobs are.
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
        """Charge a job that took ``seconds`` and ended now."""
        self._earn(now - seconds)
        # In this order, so that the limit does not cut off what is earned during the job.
        self._balance -= seconds
        self._earn(now)

    def forgive(self, *, now: float) -> None:
        """Clear a debt; used while nothing is training."""
        self._earn(now)
        self._balance = max(self._balance, 0.0)

    def _earn(self, now: float) -> None:
        self._balance = min(self._balance + self._rate * (now - self._at), LARGEST_SAVING)
        self._at = now
