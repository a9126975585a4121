"""Meshes as trimesh's objects, which its exporters take.

Letters: V vertices.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sdi_gs.mesh.extraction import TriangleMesh
from sdi_gs.mesh.surface import mesh_library


def trimesh_surface(mesh: TriangleMesh, *, coloured: bool) -> Any:
    """Return a ``trimesh.Trimesh`` with the mesh's normals and, if ``coloured``, sRGB colours in bytes.

    Raises UserError where trimesh is missing.
    """
    return mesh_library("trimesh").Trimesh(
        vertices=mesh.vertices,
        faces=mesh.faces,
        vertex_normals=mesh.normals,
        vertex_colors=_opaque_bytes(mesh.rgb) if coloured else None,
        process=False,
    )


def _opaque_bytes(
    rgb: np.ndarray,  # [V, 3] in [0, 1]
) -> np.ndarray:
    """Return the colours with an opaque alpha, [V, 4] uint8."""
    scaled = np.rint(rgb * 255.0).astype(np.uint8)
    return np.concatenate([scaled, np.full((len(rgb), 1), 255, np.uint8)], axis=1)
