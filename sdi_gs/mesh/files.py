"""Meshes as files that common programs open: glb, obj, ply.

Viewers of meshes take y as up and look at an object's front along -z, as glTF's asset frame says (+y up, front +z);
the training world has z up and the front along +x.

Letters: V vertices, F faces.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, assert_never

import numpy as np

from sdi_gs.files import write_atomically
from sdi_gs.mesh.extraction import TriangleMesh
from sdi_gs.mesh.surface import mesh_library
from sdi_gs.settings.mesh import MeshFormat
from sdi_gs.splats.splat_cloud import Frame

Y_UP_FROM_TRAIN = (1, 2, 0)
"""Which training axis becomes x', y', z': x' = y, y' = z, z' = x, a rotation."""

SUFFIXES: dict[MeshFormat, str] = {"glb": ".glb", "obj": ".obj", "ply-mesh": ".ply"}

# The default material of glTF is bare metal, which is black where nothing surrounds it.
_MATERIAL = {"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0}}
_UNSIGNED_SHORT = 5123


def write_mesh(
    path: Path,
    mesh: TriangleMesh,
    file_format: MeshFormat,
    *,
    frame: Frame = "viewer",
    overwrite: bool = False,
) -> None:
    """Write a mesh given in the training world; ``frame`` says which axes the file gets.

    Colours are those of the renders (sRGB) in obj and ply, and linear in glb, as each format has it.

    Raises UserError where trimesh is missing, where ``path`` exists (unless ``overwrite``) and for a full disk.
    """
    trimesh = mesh_library("trimesh")
    columns = _columns(frame)
    surface: Any = trimesh.Trimesh(
        vertices=mesh.vertices[:, columns],
        faces=mesh.faces,
        vertex_normals=mesh.normals[:, columns],
        vertex_colors=None if file_format == "glb" else _opaque_bytes(mesh.rgb),
        process=False,
    )
    match file_format:
        case "glb":
            content = trimesh.exchange.gltf.export_glb(
                surface,
                include_normals=True,
                buffer_postprocessor=lambda buffers, tree: _add_colours(buffers, tree, mesh.rgb),
            )
        case "obj":
            content = trimesh.exchange.obj.export_obj(surface, include_normals=True, header=None).encode()
        case "ply-mesh":
            content = trimesh.exchange.ply.export_ply(surface, vertex_normal=True)
        case _:
            assert_never(file_format)
    write_atomically(path, content, overwrite=overwrite)


def linear_from_srgb(
    rgb: np.ndarray,  # [..., 3] in [0, 1]
) -> np.ndarray:
    """Linear light [..., 3] of displayed colours (IEC 61966-2-1)."""
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def _columns(frame: Frame) -> list[int]:
    match frame:
        case "viewer":
            return list(Y_UP_FROM_TRAIN)
        case "train":
            return [0, 1, 2]
        case _:
            assert_never(frame)


def _opaque_bytes(
    rgb: np.ndarray,  # [V, 3] in [0, 1]
) -> np.ndarray:
    """Colours with an alpha [V, 4] uint8."""
    scaled = np.rint(rgb * 255.0).astype(np.uint8)
    return np.concatenate([scaled, np.full((len(rgb), 1), 255, np.uint8)], axis=1)


def _add_colours(
    buffers: dict[Any, bytes],
    tree: dict[str, Any],
    rgb: np.ndarray,  # [V, 3] in [0, 1]
) -> None:
    """Put linear colours and a plain material into a glTF that trimesh is about to write.

    trimesh writes colours in bytes as they come; linear ones need 16 bits, or dark colours show steps.
    """
    linear = np.concatenate([linear_from_srgb(rgb), np.ones((len(rgb), 1))], axis=1)
    buffers["COLOR_0"] = np.rint(linear * 65535.0).astype("<u2").tobytes()
    accessor = {"bufferView": len(buffers) - 1, "componentType": _UNSIGNED_SHORT, "normalized": True}
    tree["accessors"]["COLOR_0"] = {**accessor, "type": "VEC4", "count": len(rgb)}
    [primitive] = tree["meshes"][0]["primitives"]
    primitive["attributes"]["COLOR_0"] = len(tree["accessors"]) - 1
    tree["materials"] = [_MATERIAL]
    primitive["material"] = 0
