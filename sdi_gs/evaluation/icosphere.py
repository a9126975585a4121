"""Even places on a sphere: an icosahedron whose triangles are split in four and pushed out to the sphere.

Letters: V vertices, F faces.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

_GOLDEN = (1.0 + math.sqrt(5.0)) / 2.0


@dataclass(frozen=True, kw_only=True)
class Icosphere:
    """Vertices of radius 1, and the triangles between them."""

    vertices: np.ndarray  # [V, 3] float64
    faces: np.ndarray  # [F, 3] int64

    @cached_property
    def neighbours(self) -> np.ndarray:  # [V, V] bool
        """Whether an edge joins two vertices."""
        joined = np.zeros((len(self.vertices), len(self.vertices)), bool)
        for first, second in ((0, 1), (1, 2), (2, 0)):
            joined[self.faces[:, first], self.faces[:, second]] = True
            joined[self.faces[:, second], self.faces[:, first]] = True
        return joined


def icosphere(subdivisions: int) -> Icosphere:
    """Return the sphere after so many splits: 12, 42, 162 vertices."""
    vertices, faces = _icosahedron()
    for _ in range(subdivisions):
        vertices, faces = _split(vertices, faces)
    return Icosphere(vertices=vertices, faces=faces)


def _icosahedron() -> tuple[np.ndarray, np.ndarray]:
    """Return the cyclic permutations of (0, 1, golden) with all signs, and the triples at an edge's length."""
    signs = [(a, b) for a in (-1.0, 1.0) for b in (-1.0, 1.0)]
    corners = [np.roll([0.0, a, b * _GOLDEN], shift) for shift in range(3) for a, b in signs]
    vertices = np.array(corners) / math.hypot(1.0, _GOLDEN)
    distances = np.linalg.norm(vertices[:, None] - vertices[None], axis=-1)
    near = np.isclose(distances, distances[distances > 1e-9].min())
    faces = [
        (a, b, c)
        for a in range(12)
        for b in range(a + 1, 12)
        for c in range(b + 1, 12)
        if near[a, b] and near[b, c] and near[a, c]
    ]
    return vertices, np.array(faces)


def _split(
    vertices: np.ndarray,  # [V, 3]
    faces: np.ndarray,  # [F, 3]
) -> tuple[np.ndarray, np.ndarray]:
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    unique, which = np.unique(edges, axis=0, return_inverse=True)
    halves = vertices[unique].mean(axis=1)
    halves /= np.linalg.norm(halves, axis=1, keepdims=True)
    ab, bc, ca = (which.reshape(3, -1) + len(vertices)).astype(np.int64)
    a, b, c = faces.T
    parts = [np.stack(corners, axis=1) for corners in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))]
    return np.concatenate([vertices, halves]), np.concatenate(parts)
