"""Metric "divergence": whether a run came to nothing: an empty scene, one that fills the sight, or a flat one."""

from __future__ import annotations

from typing import Any

import numpy as np

from sdi_gs.evaluation.metrics.metric import Metric, Subject, TableRow
from sdi_gs.evaluation.metrics.shape import sides_of

DARK, EVEN, MOST_EMPTY = 0.02, 0.012, 0.5
"""MV-SDI's test: a view is empty if its mean is below the first or its deviation below the second; a run has diverged
if more than the third of its views are empty."""
FULL = 0.5
"""Mean alpha along the pictures' edges from which a scene fills the sight."""
FLAT = 0.05
"""Thinnest side over the longest, below which an object is a sheet."""


def empty_views(
    rgb: np.ndarray,  # [V, H, W, 3] uint8
) -> float:
    """Return the share of pictures in which nothing can be seen, by MV-SDI's test."""
    # Bytes are counted instead of converted, which 50 large pictures would make slow.
    counts = np.stack([np.bincount(picture.ravel(), minlength=256) for picture in rgb])
    shares, values = counts / counts.sum(axis=1, keepdims=True), np.arange(256) / 255.0
    means = shares @ values
    deviations = np.sqrt(np.maximum(shares @ values**2 - means**2, 0.0))
    return float(((means < DARK) | (deviations < EVEN)).mean())


def edge_alpha(
    alpha: np.ndarray,  # [V, H, W] uint8
) -> float:
    """Return the mean alpha along the pictures' four edges."""
    edges = [alpha[:, 0], alpha[:, -1], alpha[:, 1:-1, 0], alpha[:, 1:-1, -1]]
    return float(np.concatenate(edges, axis=1).mean(dtype=np.float64) / 255.0)


def _compute(subject: Subject) -> dict[str, Any]:
    shown, matter = subject.shown, subject.matter
    empty, edge = empty_views(shown.rgb), edge_alpha(shown.alpha)
    kind = None
    if edge > FULL:
        # Before the next, which takes an even fog for an empty picture.
        kind = "full"
    elif matter is None or empty > MOST_EMPTY:
        kind = "empty"
    else:
        sides, _ = sides_of(matter)
        kind = "flat" if sides[0] < FLAT * sides[2] else None
    return {
        "diverged": kind is not None,
        "diverged_as": kind,
        "empty_views": empty,
        "alpha_coverage": float(shown.alpha.mean(dtype=np.float64) / 255.0),
        "edge_alpha": edge,
    }


DIVERGENCE = Metric(
    name="divergence",
    compute=_compute,
    rows=(
        TableRow(title="diverged", score="{diverged} ({diverged_as})"),
        TableRow(title="share of the pictures that it covers", score="{alpha_coverage}"),
    ),
)
