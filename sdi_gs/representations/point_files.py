"""Files of points: centres and colours.

Letters: N points.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sdi_gs.errors import UserError
from sdi_gs.settings.gaussians import MAX_INITIAL
from sdi_gs.splats.ply_columns import positions, rgb_columns, rgb_names, rounded
from sdi_gs.splats.ply_table import read_vertex_table
from sdi_gs.splats.screening import MAX_DISTANCE, listed


def read_points(path: Path) -> tuple[Tensor, Tensor | None]:
    """Read centres [N, 3] and colours [N, 3] in [0, 1] of a .ply's vertices; None without colours.

    Points without a place or a colour, such as the gaps in a scan, are left out; a warning reports how many of how
    many. Raises UserError where none is left, and as ``read_vertex_table``.
    """
    table = read_vertex_table(path, required=("x", "y", "z"), max_rows=MAX_INITIAL, what="points")
    names = rgb_names(table.dtype.names or ())
    rgb = None if names is None else rgb_columns(table, names)
    places = positions(table)
    finite = np.isfinite(places).all(axis=1)
    if rgb is not None:
        finite &= ~rgb.isnan().any(dim=-1).numpy()
    near = (np.abs(places) <= MAX_DISTANCE).all(axis=1)
    kept = finite & near
    counts = {"not finite": int((~finite).sum()), f"farther than {MAX_DISTANCE:g}": int((finite & ~near).sum())}
    if not kept.any():
        raise UserError(f"cannot start from {path}: none of its {len(table)} points is finite{listed(counts)}")
    if not kept.all():
        left_out = len(table) - int(kept.sum())
        warnings.warn(f"{path}: {left_out} of its {len(table)} points are left out{listed(counts)}", stacklevel=2)
        places, rgb = places[kept], None if rgb is None else rgb[torch.from_numpy(kept)]
    return rounded(places, path), rgb
