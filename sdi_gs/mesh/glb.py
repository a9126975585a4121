"""Meshes as binary glTF 2.0: linear colours per vertex in 16 bits and a material that is no metal.

Letters: V vertices, F faces.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sdi_gs.files import write_atomically
from sdi_gs.files.origin import Origin
from sdi_gs.mesh.extraction import TriangleMesh
from sdi_gs.mesh.formats import MeshWriter
from sdi_gs.mesh.surface import mesh_library
from sdi_gs.mesh.trimesh_surface import trimesh_surface
from sdi_gs.representations.mesh_colours import linear_from_srgb
from sdi_gs.settings.export import ExportOptions

# The default material of glTF is bare metal, which is black where nothing surrounds it.
_MATERIAL = {"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0}}
_UNSIGNED_SHORT = 5123


def write_glb(path: Path, mesh: TriangleMesh, /, *, options: ExportOptions, origin: Origin, overwrite: bool) -> None:
    """Write a mesh whose vertices are in the file's axes (UserError as ``MeshWriter``)."""
    content = mesh_library("trimesh").exchange.gltf.export_glb(
        trimesh_surface(mesh, coloured=False),
        include_normals=True,
        buffer_postprocessor=lambda buffers, tree: _add_colours(buffers, tree, mesh.rgb),
    )
    write_atomically(path, content, overwrite=overwrite)


def _add_colours(
    buffers: dict[Any, bytes],
    tree: dict[str, Any],
    rgb: np.ndarray,  # [V, 3] in [0, 1]
) -> None:
    """Put linear colours and a material into a glTF that trimesh is about to write.

    trimesh writes colours as bytes; linear ones need 16 bits, or dark colours show steps.
    """
    linear = np.concatenate([linear_from_srgb(rgb), np.ones((len(rgb), 1))], axis=1)
    buffers["COLOR_0"] = np.rint(linear * 65535.0).astype("<u2").tobytes()
    accessor = {"bufferView": len(buffers) - 1, "componentType": _UNSIGNED_SHORT, "normalized": True}
    tree["accessors"]["COLOR_0"] = {**accessor, "type": "VEC4", "count": len(rgb)}
    [primitive] = tree["meshes"][0]["primitives"]
    primitive["attributes"]["COLOR_0"] = len(tree["accessors"]) - 1
    tree["materials"] = [_MATERIAL]
    primitive["material"] = 0


WRITER: MeshWriter = write_glb
