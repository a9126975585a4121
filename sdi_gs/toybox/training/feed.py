"""Batches by number, drawn ahead by other processes where a fast device would wait for them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import numba
import torch
from torch.utils.data import DataLoader, Dataset

T = TypeVar("T")

# Batches that each process has ready.
_AHEAD = 4


class Feed(Generic[T]):
    """What ``draw`` gives for a number, which is all it may depend on; it is pickled to the processes.

    Without processes a batch is drawn when it is asked for. With them those that follow it are drawn meanwhile.
    """

    def __init__(self, draw: Callable[[int], T], *, processes: int = 0) -> None:
        self._draw, self._processes = draw, processes
        self._coming: Iterator[T] | None = None
        self._next = 0

    def batch(self, number: int) -> T:
        """The batch of that number."""
        if not self._processes:
            return self._draw(number)
        if self._coming is None or number != self._next:
            self._coming, self._next = iter(self._loader(number)), number
        self._next += 1
        return next(self._coming)

    def _loader(self, start: int) -> DataLoader[T]:
        loader: Any = DataLoader(
            _Numbered(self._draw),
            # From here on without an end.
            sampler=itertools.count(start),
            # A number is a whole batch already.
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=self._processes,
            prefetch_factor=_AHEAD,
            worker_init_fn=_one_thread,
            # A process forked from one that uses a card and threads may hang.
            multiprocessing_context="spawn",
        )
        return loader


class _Numbered(Dataset[T]):
    def __init__(self, draw: Callable[[int], T]) -> None:
        self._draw = draw

    def __getitem__(self, index: int) -> T:
        return self._draw(index)


def _as_it_is(drawn: T) -> T:
    return drawn


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)
    numba.set_num_threads(1)
