"""Files of points: centres and colours.

Letters: N points.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sdi_gs.settings.gaussians import MAX_INITIAL
from sdi_gs.splats.ply_table import read_vertex_table


def read_points(path: Path) -> tuple[Tensor, Tensor | None]:
    """Read centres [N, 3] and colours [N, 3] in [0, 1] of a .ply's vertices; None without colours."""
    table = read_vertex_table(path, required=("x", "y", "z"), max_rows=MAX_INITIAL, what="points")
    points = _columns(table, ("x", "y", "z"))
    names = ("red", "green", "blue")
    if not set(names) <= set(table.dtype.names or ()):
        return points, None
    kind = table.dtype["red"]
    full = float(np.iinfo(kind).max) if kind.kind in "iu" else 1.0
    return points, (_columns(table, names) / full).clamp(0.0, 1.0)


def _columns(table: np.ndarray, names: tuple[str, ...]) -> Tensor:  # [N, len(names)] float32
    return torch.from_numpy(np.stack([table[name].astype(np.float32) for name in names], axis=-1))
