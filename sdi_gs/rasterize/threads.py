"""Run kernels that release the GIL on several threads; results never depend on the number of threads.

numba's own ``parallel=True`` is not used: its thread layers abort on concurrent calls (workqueue) or spin while
they wait (OpenMP, next to torch's own copy), and it multiplies compile time.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

_GRAIN = 64
"""Ranges start at multiples of this, so that vectorised loops always put an item into the same lane."""


@functools.cache
def _pool(num_workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(num_workers, thread_name_prefix="rasterize")


if hasattr(os, "register_at_fork"):
    # A forked child inherits the pool's object but not its threads.
    os.register_at_fork(after_in_child=_pool.cache_clear)


def _run_all(calls: list[Callable[[], Any]]) -> None:
    """Run the first call on this thread and the others on the pool; raise the exception of any that fails."""
    if len(calls) == 1:
        calls[0]()
        return
    futures = [_pool(torch.get_num_threads() - 1).submit(call) for call in calls[1:]]
    try:
        calls[0]()
    finally:
        # The other calls write to the caller's arrays: wait for them even if the first one has failed.
        for future in futures:
            future.result()


def num_threads(work: int, smallest_work: int) -> int:
    """Return how many threads to use so that each gets at least ``smallest_work`` of ``work``."""
    if work < 2 * smallest_work:
        return 1
    return max(1, min(torch.get_num_threads(), work // max(smallest_work, 1)))


def run_on_ranges(kernel: Callable[..., None], count: int, smallest: int, *arguments: Any) -> None:
    """Call ``kernel(begin, end, *arguments)`` on ranges that cover 0 to ``count``, each about ``smallest`` or more."""
    num_ranges = num_threads(count, smallest)
    if num_ranges == 1:
        kernel(0, count, *arguments)
        return
    grains = -(-count // _GRAIN)
    bounds = [min(count, _GRAIN * (grains * k // num_ranges)) for k in range(num_ranges + 1)]
    _run_all([functools.partial(kernel, *bounds[k : k + 2], *arguments) for k in range(num_ranges)])


def run_interleaved(kernel: Callable[..., None], count: int, work: int, smallest_work: int, *arguments: Any) -> None:
    """Call ``kernel(k, step, *arguments)`` for each thread k: it takes items k, k + step, ... of ``count``.

    Each thread gets about ``smallest_work`` of ``work`` or more.
    """
    step = max(1, min(num_threads(work, smallest_work), count))
    if step == 1:
        kernel(0, 1, *arguments)
        return
    _run_all([functools.partial(kernel, k, step, *arguments) for k in range(step)])
