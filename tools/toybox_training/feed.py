"""Batches by number, drawn ahead by other processes for a fast device."""

from __future__ import annotations

import pickle
import weakref
from collections import deque
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.pool import AsyncResult, Pool
from typing import Any, Generic, TypeVar

T = TypeVar("T")

# Batches ahead per process.
_AHEAD = 4
_draw_here: Callable[[int], Any]


class Feed(Generic[T]):
    """Batches ``draw(number)``; ``draw`` may depend on the number only and must be picklable.

    Without processes a batch is drawn on request. With processes the following batches are drawn meanwhile; the
    processes end with the feed.
    """

    def __init__(self, draw: Callable[[int], T], *, processes: int = 0) -> None:
        self._draw, self._processes = draw, processes
        self._pool: Pool | None = None
        self._coming: deque[AsyncResult[bytes]] = deque()
        self._next = 0

    def batch(self, number: int) -> T:
        """Return the batch of that number."""
        if not self._processes:
            return self._draw(number)
        if self._pool is None:
            self._pool = _start(self._draw, self._processes)
            # Terminated, because nothing needs to be finished.
            weakref.finalize(self, self._pool.terminate)
        if number != self._next:
            self._coming.clear()
            self._next = number
        while len(self._coming) < _AHEAD * self._processes:
            self._coming.append(self._pool.apply_async(_drawn, (number + len(self._coming),)))
        self._next += 1
        return pickle.loads(self._coming.popleft().get())


def _start(draw: Callable[[int], Any], processes: int) -> Pool:
    # A process forked from one with threads and a card may hang.
    return get_context("spawn").Pool(processes, initializer=_begin, initargs=(draw,))


def _begin(draw: Callable[[int], Any]) -> None:
    import numba
    import torch

    global _draw_here  # noqa: PLW0603 - a pool's processes have no other place for what they all were given.
    _draw_here = draw
    torch.set_num_threads(1)
    numba.set_num_threads(1)


def _drawn(number: int) -> bytes:
    # Pickled here, because torch would pass tensors in shared memory, which ends with the process.
    return pickle.dumps(_draw_here(number), protocol=pickle.HIGHEST_PROTOCOL)
