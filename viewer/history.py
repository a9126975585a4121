"""Data of the plots: rows of numbers, bounded in number for runs of any length."""

from __future__ import annotations

import threading

import numpy as np

MAX_ROWS = 400


class History:
    """Rows of (step, loss, t, Gaussians, steps/s); when full, every second row is dropped and the rate halved."""

    def __init__(self) -> None:
        self._rows: list[tuple[float, ...]] = []
        self._every = 1
        self._seen = 0
        self._lock = threading.Lock()

    def add(self, step: int, loss: float, timestep: int, count: int, rate: float) -> None:
        """Add a step."""
        with self._lock:
            if self._seen % self._every == 0:
                self._rows.append((step, loss, timestep, count, rate))
            self._seen += 1
            if len(self._rows) >= MAX_ROWS:
                del self._rows[1::2]
                self._every *= 2

    def columns(self) -> np.ndarray:  # [5, rows] float64
        """Return the rows as columns; numbers that are not finite become 0."""
        with self._lock:
            table = np.array(self._rows, dtype=np.float64).reshape(-1, 5)
        return np.nan_to_num(table.T, nan=0.0, posinf=0.0, neginf=0.0)
