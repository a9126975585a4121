"""The closed-form prior's pictures, kept between runs.

Letters: M pictures, h w pooled pixels.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numba
import numpy as np
import torch
from llvmlite import binding
from torch import Tensor

from sdi_gs.files.kept_arrays import digest_of, kept_arrays
from sdi_gs.settings.priors import IdealPriorConfig

SMALLEST_KEPT = 256
"""Fewer pictures are rendered about as fast as they are read."""
_ROOM = Path(__file__).resolve().parents[1]
_SOURCES = ("toybox/*.py", "toybox/kernels/*.py", "priors/ideal*.py", "priors/camera_windows.py", "cameras.py")
"""Source files that the pictures depend on, and with them the kept pictures' names."""


def kept_renders(
    config: IdealPriorConfig,
    names: tuple[str | int | None, ...],
    render: Callable[[], tuple[Tensor, Tensor]],
    *,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Return the foregrounds [M, 3, h, w] and alphas [M, 1, h, w] that ``render`` makes, from the disk if it has them.

    ``names`` tell one set of pictures of a config from another; the last one is their number. Off the CPU nothing is
    kept.
    """
    if device.type != "cpu" or int(names[-1] or 0) < SMALLEST_KEPT:
        return render()

    def make() -> dict[str, np.ndarray]:
        return dict(zip(("foreground", "alpha"), (tensor.numpy() for tensor in render()), strict=True))

    # Widths and weights of the mixture come later.
    later = ("component_std", "styled_std", "view_words_dropped", "front_share")
    pictures = {name: value for name, value in asdict(config).items() if name not in later}
    arrays = kept_arrays(digest_of([json.dumps([pictures, names]), _machine()], _sources()), make)
    return torch.from_numpy(arrays["foreground"]), torch.from_numpy(arrays["alpha"])


def _machine() -> str:
    """Return what rounding depends on: libraries, and the processor for which kernels are compiled."""
    chosen = os.environ.get("NUMBA_CPU_NAME"), os.environ.get("NUMBA_CPU_FEATURES")
    features = chosen, torch.backends.cpu.get_cpu_capability()
    return f"{numba.__version__} {np.__version__} {torch.__version__} {binding.get_host_cpu_name()} {features}"


@cache
def _sources() -> tuple[Path, ...]:
    return tuple(path for pattern in _SOURCES for path in sorted(_ROOM.glob(pattern)))
