"""Triangles from values on a grid: marching cubes, removal of small pieces, simplification, a check for flaws.

Faces are counter-clockwise seen from outside, where the values are low.

Letters: X Y Z grid points, V vertices, F faces, K pieces.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import numpy as np

from sdi_gs.errors import UserError


def mesh_library(name: str) -> ModuleType:
    """Import a package that only meshes need; UserError that names the extra where it is missing."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(f'a mesh needs the package {error.name}: pip install "sdi-gs[mesh]"') from error


def level_surface(
    values: np.ndarray,  # [X, Y, Z] float32, at least 0
    level: float,
    *,
    low: np.ndarray,  # [3] the first grid point
    spacing: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Return vertices [V, 3] float64 and faces [F, 3] of the surface where ``values`` cross ``level``.

    ``level`` must lie between the least and the largest value. Outside the grid the values are taken as 0, so the
    surface is closed, and flat where the grid cuts the object off.
    """
    measure = mesh_library("skimage.measure")
    padded = np.pad(values, 1)
    vertices, faces, _, _ = measure.marching_cubes(padded, level, gradient_direction="ascent")
    return low + (vertices.astype(np.float64) - 1.0) * spacing, faces.astype(np.int64)


def pieces(
    vertices: np.ndarray,  # [V, 3]
    faces: np.ndarray,  # [F, 3]
) -> tuple[np.ndarray, np.ndarray]:
    """Return each face's piece [F], and the volume [K] of each piece, negative for the wall of a closed hollow."""
    sparse, graph = mesh_library("scipy.sparse"), mesh_library("scipy.sparse.csgraph")
    heads, tails = faces[:, [0, 1]].ravel(), faces[:, [1, 2]].ravel()
    links = sparse.coo_matrix((np.ones(len(heads), bool), (heads, tails)), shape=(len(vertices), len(vertices)))
    count, of_vertices = graph.connected_components(links, directed=False)
    of_faces = of_vertices[faces[:, 0]]
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    volumes = np.bincount(of_faces, np.einsum("fi,fi->f", a, np.cross(b, c)) / 6.0, minlength=count)
    return of_faces, volumes


def without_small_pieces(
    vertices: np.ndarray,  # [V, 3]
    faces: np.ndarray,  # [F, 3]
    keep_share: float,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Keep the pieces with at least ``keep_share`` of the largest one's volume; also return how many were removed.

    Walls of closed hollows are invisible and always removed.
    """
    of_faces, volumes = pieces(vertices, faces)
    kept = (volumes >= keep_share * volumes.max()) & (volumes > 0.0)
    return *_compact(vertices, faces[kept[of_faces]]), int(np.count_nonzero(~kept))


def with_fewer_faces(
    vertices: np.ndarray,  # [V, 3]
    faces: np.ndarray,  # [F, 3]
    max_faces: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Simplify a mesh to about ``max_faces`` triangles by quadric edge collapse (Garland and Heckbert 1997)."""
    if len(faces) <= max_faces:
        return vertices, faces
    simplify = mesh_library("fast_simplification").simplify
    fewer, corners = simplify(vertices.astype(np.float32), faces.astype(np.int32), target_count=max_faces)
    return _compact(np.asarray(fewer, np.float64), np.asarray(corners, np.int64))


def flaws(
    faces: np.ndarray,  # [F, 3]
) -> list[str]:
    """Describe why the faces do not enclose a volume; empty where they are watertight."""
    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    _, shared = np.unique(np.sort(directed, axis=1), axis=0, return_counts=True)
    _, same_way = np.unique(directed, axis=0, return_counts=True)
    counts = {
        "edges with one face only": int((shared == 1).sum()),
        "edges with more than two faces": int((shared > 2).sum()),
        "edges whose faces look opposite ways": int((same_way > 1).sum()) if shared.max(initial=0) <= 2 else 0,
    }
    return [f"{count} {what}" for what, count in counts.items() if count]


def vertex_normals(
    vertices: np.ndarray,  # [V, 3]
    faces: np.ndarray,  # [F, 3]
) -> np.ndarray:
    """Return unit normals [V, 3] that point outwards: the area-weighted mean of the adjacent faces' normals."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    doubled = np.cross(b - a, c - a)
    sums = np.stack(
        [np.bincount(faces.ravel(), np.repeat(doubled[:, axis], 3), minlength=len(vertices)) for axis in range(3)],
        axis=-1,
    )
    return sums / np.maximum(np.linalg.norm(sums, axis=-1, keepdims=True), 1e-30)


def _compact(
    vertices: np.ndarray,  # [V, 3]
    faces: np.ndarray,  # [F, 3]
) -> tuple[np.ndarray, np.ndarray]:
    """Remove the vertices that no face uses."""
    used, corners = np.unique(faces, return_inverse=True)
    return vertices[used], corners.reshape(faces.shape)
