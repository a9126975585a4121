"""Triangles on a grid of pixels: which pixel centres each covers, and which triangle is the nearest.

Pixel centres are at +0.5. Triangles that share an edge share the centres on it.

Letters: V vertices, F faces, K pairs of a face and a pixel, P pixels, row by row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sdi_gs.cameras import CameraBatch

PAIRS_AT_ONCE = 2**20
"""Pairs of a triangle and a pixel of its bounding box that are tested at a time: a bound on memory."""
NEAREST = 1e-6
"""Least depth of a triangle's corners, scene units; those with a nearer one are left out."""


@dataclass(frozen=True, kw_only=True)
class Covered:
    """Pairs of a face and a pixel whose centre it covers."""

    faces: np.ndarray  # [K]
    pixels: np.ndarray  # [K] row times width plus column
    weights: np.ndarray  # [K, 3] barycentric, in the plane


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """For each pixel of a camera the face that it sees."""

    faces: np.ndarray  # [P], -1 for none
    weights: np.ndarray  # [P, 3] barycentric on the face itself
    depths: np.ndarray  # [P] z depth, infinite where there is no face


def covered_pixels(
    corners: np.ndarray,  # [F, 3, 2] pixels
    width: int,
    height: int,
) -> Iterator[Covered]:
    """Yield all pairs of a triangle and a pixel in it, many at a time; the faces in their order."""
    limits = np.array([width, height])
    low = np.clip(np.ceil(corners.min(axis=1) - 0.5), 0, limits).astype(np.int64)
    high = np.clip(np.floor(corners.max(axis=1) - 0.5) + 1, 0, limits).astype(np.int64)
    sizes = np.maximum(high - low, 0)
    counts = sizes.prod(axis=1)
    candidates = np.flatnonzero(counts)
    groups = np.cumsum(counts[candidates]) // PAIRS_AT_ONCE
    for group in range(int(groups[-1]) + 1 if len(groups) else 0):
        chosen = candidates[groups == group]
        faces = np.repeat(chosen, counts[chosen])
        starts = np.cumsum(counts[chosen]) - counts[chosen]
        within = np.arange(len(faces)) - np.repeat(starts, counts[chosen])
        columns = low[faces, 0] + within % sizes[faces, 0]
        rows = low[faces, 1] + within // sizes[faces, 0]
        weights = _barycentric(corners[faces], columns + 0.5, rows + 0.5)
        inside = (weights >= -1e-9).all(axis=1)
        yield Covered(faces=faces[inside], pixels=(rows * width + columns)[inside], weights=weights[inside])


def nearest_faces(
    vertices: np.ndarray,  # [V, 3] world
    faces: np.ndarray,  # [F, 3]
    cameras: CameraBatch,  # one of them
) -> Nearest:
    """Return what a camera sees of a mesh, from both sides of its faces."""
    pixels, depths = projected(vertices, cameras)
    ahead = (depths[faces] > NEAREST).all(axis=1)
    kept = np.flatnonzero(ahead)
    count = cameras.width * cameras.height
    found, nearness = np.full(count, -1), np.zeros(count)
    weights = np.zeros((count, 3))
    for part in covered_pixels(pixels[faces[kept]], cameras.width, cameras.height):
        # What is even on the screen is the inverse of the depth.
        inverse = part.weights / depths[faces[kept[part.faces]]]
        total = inverse.sum(axis=1)
        # The nearest of each pixel, the first of equal ones.
        order = np.lexsort((-total, part.pixels))
        firsts = order[np.unique(part.pixels[order], return_index=True)[1]]
        better = firsts[total[firsts] > nearness[part.pixels[firsts]]]
        where = part.pixels[better]
        found[where], nearness[where] = kept[part.faces[better]], total[better]
        weights[where] = inverse[better] / total[better, None]
    with np.errstate(divide="ignore"):
        return Nearest(faces=found, weights=weights, depths=1.0 / nearness)


def projected(
    points: np.ndarray,  # [V, 3] world
    cameras: CameraBatch,  # one of them
) -> tuple[np.ndarray, np.ndarray]:
    """Return places in a camera's picture [V, 2], pixels, and z depths [V]."""
    view = cameras.camera_from_world[0].double().numpy()
    intrinsics = cameras.intrinsics[0].double().numpy()
    seen = points @ view[:3, :3].T + view[:3, 3]
    depths = seen[:, 2]
    away = np.where(np.abs(depths) > NEAREST, depths, NEAREST)
    return seen[:, :2] / away[:, None] * intrinsics[[0, 1], [0, 1]] + intrinsics[:2, 2], depths


def _barycentric(
    corners: np.ndarray,  # [K, 3, 2]
    x: np.ndarray,  # [K]
    y: np.ndarray,  # [K]
) -> np.ndarray:
    """Return barycentric coordinates [K, 3] of points; NaN in triangles without an area, which cover nothing."""
    a, b, c = (corners[:, corner] for corner in range(3))

    def doubled_area(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        return (p[:, 0] - x) * (q[:, 1] - y) - (p[:, 1] - y) * (q[:, 0] - x)

    parts = np.stack([doubled_area(b, c), doubled_area(c, a), doubled_area(a, b)], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return parts / parts.sum(axis=1, keepdims=True)
