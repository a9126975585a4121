"""Choice of the code that computes: numba kernels on the CPU, Triton's on CUDA, torch operations otherwise."""

from __future__ import annotations

import functools
import os
import shutil
import sys
import sysconfig
import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, assert_never

import torch
from torch import Tensor

from sdi_gs.errors import UserError
from sdi_gs.settings.compute import FieldKernels

Backend = Literal["numba", "triton", "torch"]


def backend_for(*tensors: Tensor) -> Backend:
    """Return numba if every tensor is float32 on the CPU, Triton if on CUDA and it works there, else torch."""
    kinds = {tensor.device.type if tensor.dtype == torch.float32 else "other" for tensor in tensors}
    if kinds == {"cpu"}:
        return "numba"
    return "triton" if kinds == {"cuda"} and has_triton() else "torch"


def configured_backend(kernels: FieldKernels, device: torch.device) -> Backend | None:
    """Return the code that a run's settings name for a field; None to choose by device and type.

    Raises UserError for Triton's kernels where they cannot run.
    """
    match kernels:
        case "auto":
            return None
        case "torch":
            return "torch"
        case "triton":
            if device.type != "cuda":
                raise UserError(
                    f"--compute.field-kernels triton needs a CUDA device, and this run computes on {device.type}: "
                    "use auto or torch"
                )
            if not has_triton():
                raise UserError(
                    "--compute.field-kernels triton needs the package triton, a C compiler and Python's headers: "
                    "pip install triton, apt install gcc python3-dev, or use auto or torch"
                )
            return "triton"
        case _:
            assert_never(kernels)


@functools.cache
def is_installed(package: str) -> bool:
    """Return whether a package is installed, without importing it."""
    return find_spec(package) is not None


@functools.cache
def has_triton() -> bool:
    """Return whether Triton is installed, and what it compiles its launcher with: a C compiler and Python's headers."""
    compiler = os.environ.get("CC") or shutil.which("clang") or shutil.which("gcc")
    headers = Path(sysconfig.get_paths()["include"], "Python.h")
    return is_installed("triton") and compiler is not None and headers.exists()


def imported(package: str) -> Any:
    """Import a package without Python's warnings about escapes in its docstrings (nerfacc 0.5.3)."""
    if package not in sys.modules:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*invalid escape sequence")
            import_module(package)
    return sys.modules[package]
