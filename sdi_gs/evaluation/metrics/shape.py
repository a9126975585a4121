"""Metric "shape": numbers of the object itself and of its pictures that need neither weights nor a truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sdi_gs.evaluation.extent import Matter
from sdi_gs.evaluation.floating import floating_share
from sdi_gs.evaluation.metrics.metric import Metric, Subject, TableRow

LUMINANCE = (0.2126, 0.7152, 0.0722)
"""Of sRGB's primaries."""
SOLID = 128
"""Alpha of 255 from which a pixel shows the object."""
STRAYING = 0.01
"""Share of the weight that is left out at either end of a side."""


def sides_of(matter: Matter) -> tuple[list[float], list[float]]:
    """Return the lengths of an object along its principal axes, the shortest first, and along x, y, z; scene units."""
    centred = matter.points - matter.middle
    covariance = (centred * matter.weights[:, None]).T @ centred / matter.weights.sum()
    axes = torch.linalg.eigh(covariance).eigenvectors
    widths = [2.0 * float(matter.sizes.median()) + _length(centred @ axis, matter.weights) for axis in axes.T]
    along = [2.0 * float(matter.sizes.median()) + _length(centred[:, axis], matter.weights) for axis in range(3)]
    return sorted(widths), along


def _length(places: torch.Tensor, weights: torch.Tensor) -> float:
    order = places.argsort()
    reached = weights[order].cumsum(dim=0) / weights.sum()
    low, high = (
        int(torch.searchsorted(reached, share).clamp_max(len(places) - 1)) for share in (STRAYING, 1.0 - STRAYING)
    )
    return float(places[order[high]] - places[order[low]])


def sharpness(
    rgb: np.ndarray,  # [V, H, W, 3] uint8
    alpha: np.ndarray,  # [V, H, W] uint8
) -> float | None:
    """Return the root mean square of the five-point Laplacian of luminance on the object; None where there is none."""
    total, count = 0.0, 0
    for picture, solid in zip(rgb, alpha >= SOLID, strict=True):
        light = picture.astype(np.float32) @ np.array(LUMINANCE, np.float32) / 255.0
        laplacian = 4.0 * light[1:-1, 1:-1] - light[:-2, 1:-1] - light[2:, 1:-1] - light[1:-1, :-2] - light[1:-1, 2:]
        inside = solid[1:-1, 1:-1]
        total += float((laplacian[inside] ** 2).sum(dtype=np.float64))
        count += int(inside.sum())
    return float(np.sqrt(total / count)) if count else None


def saturation(
    rgb: np.ndarray,  # [V, H, W, 3] uint8
    alpha: np.ndarray,  # [V, H, W] uint8
) -> float | None:
    """Return the mean chroma (largest minus smallest channel, 0 to 1) on the object; None where there is none."""
    inside = rgb[alpha >= SOLID]
    if not len(inside):
        return None
    return float((inside.max(axis=1) - inside.min(axis=1)).mean(dtype=np.float64) / 255.0)


def _compute(subject: Subject) -> dict[str, Any]:
    matter, shown = subject.matter, subject.shown
    values: dict[str, Any] = {"box_ratio": None, "box_height": None, "floating_opacity": None}
    if matter is not None:
        sides, along = sides_of(matter)
        values["box_ratio"] = sides[0] / sides[2]
        values["box_height"] = along[2] / max(along)
        if subject.representation.num_points:
            values["floating_opacity"] = floating_share(matter)
    return {**values, "sharpness": sharpness(shown.rgb, shown.alpha), "saturation": saturation(shown.rgb, shown.alpha)}


SHAPE = Metric(
    name="shape",
    compute=_compute,
    rows=(
        TableRow(title="thinnest side over longest", score="{box_ratio}"),
        TableRow(title="opacity that floats", score="{floating_opacity}"),
        TableRow(title="sharpness", score="{sharpness}"),
        TableRow(title="saturation", score="{saturation}"),
    ),
)
