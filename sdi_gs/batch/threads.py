"""A worker's share of the processor's cores, set in every library that starts threads of its own. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
"""Read by OpenMP, by the libraries of matrix products and by numba, once, when they are loaded."""


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_per_worker(num_workers: int, *, cores: int | None = None) -> int:
    """Return each worker's equal share of the cores, at least one, and no more than OMP_NUM_THREADS if that is set."""
    share = max((usable_cores() if cores is None else cores) // max(num_workers, 1), 1)
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(share, int(asked)) if asked.isdecimal() and int(asked) else share


def thread_environment(num_threads: int) -> Mapping[str, str]:
    """Return the environment variables of a process that may use so many threads."""
    # Threads of one runtime that spin while waiting would starve the other's.
    return {name: str(num_threads) for name in THREAD_VARIABLES} | {"OMP_WAIT_POLICY": "PASSIVE"}


def use_threads(num_threads: int) -> None:
    """Set the number of threads of torch and of numba in a process with ``thread_environment``."""
    import numba
    import torch

    torch.set_num_threads(num_threads)
    numba.set_num_threads(num_threads)
