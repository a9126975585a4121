"""Who computes: numba kernels for float32 on the CPU, torch operations everywhere else."""

from __future__ import annotations

import functools
from importlib.util import find_spec
from typing import Literal

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
