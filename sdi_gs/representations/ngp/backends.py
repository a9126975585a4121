"""Choice of the code that computes: numba kernels for float32 on the CPU, torch operations otherwise."""

from __future__ import annotations

import functools
import sys
import warnings
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor

Backend = Literal["numba", "torch"]


def backend_for(*tensors: Tensor) -> Backend:
    """Return numba if every tensor is float32 on the CPU, else torch."""
    suited = all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors)
    return "numba" if suited else "torch"


@functools.cache
def is_installed(package: str) -> bool:
    """Return whether a package is installed, without importing it."""
    return find_spec(package) is not None


def imported(package: str) -> Any:
    """Import a package without Python's warnings about escapes in its docstrings (nerfacc 0.5.3)."""
    if package not in sys.modules:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*invalid escape sequence")
            import_module(package)
    return sys.modules[package]
