"""Compile kernels with numba, cached on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from llvmlite import binding
from numba import config, njit

KERNEL_OPTIONS: dict[str, Any] = {
    # The inputs are finite (the backend has checked), and multiply-add may be fused.
    "fastmath": {"nnan", "ninf", "nsz", "contract", "arcp"},
    "error_model": "numpy",
    "boundscheck": False,
    # The backend runs kernels on threads.
    "nogil": True,
}


def has_cpu_feature(name: str) -> bool:
    """Return whether numba compiles for a CPU with a feature (LLVM's name); NUMBA_CPU_FEATURES overrides the host's."""
    name_set, features_set = config.CPU_NAME, config.CPU_FEATURES  # pyright: ignore[reportAttributeAccessIssue]
    if features_set is not None:
        return f"+{name}" in features_set.split(",")
    return name_set is None and binding.get_host_cpu_features().get(name, False)


def kernel(function: Callable[..., Any]) -> Any:
    """Compile on first use, and cache the machine code on disk if possible.

    numba caches beside the source, or else in the user's cache folder. If neither is writable, every process compiles
    the kernels again.
    """
    try:
        return njit(function, cache=True, **KERNEL_OPTIONS)
    except RuntimeError as error:
        if "no locator available" not in str(error):
            raise
        return njit(function, **KERNEL_OPTIONS)


def is_compiled(kernel: Any) -> bool:
    """Return whether a kernel's machine code exists, in this process or in the cache on disk."""
    if kernel.overloads:
        return True
    folder = kernel.stats.cache_path
    # numba names its files <module>.<function>-<line>.<python>.<number>.nbc.
    module = kernel.__module__.rpartition(".")[2]
    return folder is not None and any(Path(folder).glob(f"{module}.{kernel.__name__}-*.nbc"))
