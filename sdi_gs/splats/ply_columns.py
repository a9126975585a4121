"""Columns of a .ply's vertices as tensors: positions far from the origin are moved there before they are rounded.

Letters: N rows.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FAR = 100.0
"""Distance from the origin, in extents of the cloud, beyond which float32 has fewer than 2^16 steps across it."""
_CORE = (0.05, 0.95)
"""Quantiles of the positions that make the extent, so that strays do not."""
_RGB_NAMES = (("red", "green", "blue"), ("diffuse_red", "diffuse_green", "diffuse_blue"), ("r", "g", "b"))
"""Names of colours: usual, of VisualSFM and PhotoScan, of some scripts."""


def cast(values: np.ndarray, kind: type[np.floating]) -> np.ndarray:
    """Return numbers as another type of floats: what is too large for it is infinite, and NaN of any bits is NaN."""
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(kind)


def columns(table: np.ndarray, names: Sequence[str]) -> Tensor:
    """Return some properties of a vertex table as float32 [N, len(names)]."""
    values = np.empty((len(table), len(names)), dtype=np.float32)
    for index, name in enumerate(names):
        values[:, index] = cast(table[name], np.float32)
    return torch.from_numpy(values)


def positions(table: np.ndarray) -> np.ndarray:
    """Return x, y and z as they are in the file [N, 3], integers as float64."""
    wide = any(table.dtype[name] != np.float32 for name in "xyz")
    return np.stack([cast(table[name], np.float64 if wide else np.float32) for name in "xyz"], axis=1)


def rounded(
    points: np.ndarray,  # [N, 3] float32 or float64
    path: Path,
) -> Tensor:
    """Return positions as float32 [N, 3]; where that would lose their shape they are moved to the origin first.

    Files of surveys have metres from an equator. A warning reports the shift.
    """
    shift = _shift(points)
    if shift is None:
        return torch.from_numpy(cast(points, np.float32))
    warnings.warn(
        f"{path} lies around ({', '.join(f'{value:.12g}' for value in shift)}), too far from the origin for 32-bit "
        "numbers: it is moved to the origin",
        stacklevel=2,
    )
    return torch.from_numpy(cast(points - shift, np.float32))


def _shift(
    points: np.ndarray,  # [N, 3] float32 or float64
) -> np.ndarray | None:  # [3]
    """Return the place to move to the origin, to a round number; None where float32 keeps the shape."""
    if points.dtype == np.float32:
        return None
    finite = points[(np.abs(points) < 1e30).all(axis=1)]
    if not len(finite) or bool((finite.astype(np.float32) == finite).all()):
        return None
    low, high = np.quantile(finite, _CORE, axis=0)
    extent = float((high - low).max())
    if not extent > 0.0 or float(np.abs([low, high]).max()) < FAR * extent:
        return None
    unit = 10.0 ** math.floor(math.log10(extent))
    return np.round(0.5 * (low + high) / unit) * unit


def rgb_names(names: Sequence[str]) -> tuple[str, str, str] | None:
    """Return the names of the colours among those of the properties; None without colours."""
    return next((rgb for rgb in _RGB_NAMES if set(rgb) <= set(names)), None)


def rgb_columns(table: np.ndarray, names: tuple[str, str, str]) -> Tensor:
    """Return colours as float32 [N, 3] in [0, 1], whatever their type is; NaN stays.

    Bytes and 16-bit numbers are shares of the largest. Wider integers are bytes, and so are floats if one is above 2.
    """
    values, kind = columns(table, names), table.dtype[names[0]]
    if kind.kind in "iu" and kind.itemsize <= 2:
        full = float(np.iinfo(kind).max)
    else:
        full = 255.0 if kind.kind in "iu" or bool((values > 2.0).any()) else 1.0
    return (values / full).clamp(0.0, 1.0)
