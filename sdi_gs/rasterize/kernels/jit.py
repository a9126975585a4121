"""How the kernels are compiled."""

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
    """Whether numba compiles for a CPU with this feature (LLVM's name); NUMBA_CPU_FEATURES may say otherwise."""
    name_set, features_set = config.CPU_NAME, config.CPU_FEATURES  # pyright: ignore[reportAttributeAccessIssue]
    if features_set is not None:
        return f"+{name}" in features_set.split(",")
    return name_set is None and binding.get_host_cpu_features().get(name, False)


def kernel(function: Callable[..., Any]) -> Any:
    """Compile on first use, and keep the machine code on disk where some folder takes it.

    numba caches beside the source, else in the user's cache folder; with neither, every process compiles anew.
    """
    try:
        return njit(function, cache=True, **KERNEL_OPTIONS)
    except RuntimeError as error:
        if "no locator available" not in str(error):
            raise
        return njit(function, **KERNEL_OPTIONS)


def is_compiled(kernel: Any) -> bool:
    """Whether a kernel has been compiled in this process, or before and kept on disk."""
    if kernel.overloads:
        return True
    folder = kernel.stats.cache_path
    # numba names its files <module>.<function>-<line>.<python>.<number>.nbc.
    module = kernel.__module__.rpartition(".")[2]
    return folder is not None and any(Path(folder).glob(f"{module}.{kernel.__name__}-*.nbc"))
