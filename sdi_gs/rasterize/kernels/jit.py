"""Compile kernels with numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import binding
from numba import config

from sdi_gs.files.kernel_cache import compiled

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
    """Compile on first use, and keep the machine code on disk if possible."""
    return compiled(**KERNEL_OPTIONS)(function)
