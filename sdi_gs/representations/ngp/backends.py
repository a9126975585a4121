"""Who computes: numba kernels for float32 on the CPU, torch operations everywhere else."""

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
    """The kernels where every tensor is of their device and type."""
    suited = all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors)
    return "numba" if suited else "torch"


@functools.cache
def is_installed(package: str) -> bool:
    """Whether a package is there, without importing it."""
    return find_spec(package) is not None


def imported(package: str) -> Any:
    """A package without what Python says of its docstrings' escapes where it compiles them (nerfacc 0.5.3's)."""
    if package not in sys.modules:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*invalid escape sequence")
            import_module(package)
    return sys.modules[package]
