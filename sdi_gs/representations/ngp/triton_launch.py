"""Imports and launches of the field's kernels in Triton.

torch for Linux brings Triton, so that a card needs nothing else installed. The kernels are compiled for cards by a
test and run in Triton's interpreter by others; this project has never run them on a card.
"""

from __future__ import annotations

from contextlib import nullcontext
from importlib import import_module
from typing import Any, Literal

import torch
from torch import Tensor


def triton_kernels(name: Literal["encoding", "networks", "marching", "compositing"]) -> Any:
    """Import a module of kernels, and Triton with it."""
    return import_module(f"sdi_gs.representations.ngp.kernels.triton_{name}")


def launch(
    kernel: Any, programs: tuple[int, ...], *arguments: Any, like: Tensor, fuse_rounding: bool = True, **constants: Any
) -> None:
    """Launch a kernel on the device of ``like``; nothing without programs.

    ``fuse_rounding`` lets a multiplication and an addition round once.
    """
    if 0 in programs:
        return
    with torch.cuda.device(like.device) if like.device.type == "cuda" else nullcontext():
        kernel[programs](*arguments, enable_fp_fusion=fuse_rounding, **constants)


def num_programs(count: int, each: int) -> int:
    """Return the number of programs that take ``each`` of ``count``."""
    return -(-count // each)
