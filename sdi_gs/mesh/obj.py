"""Meshes as Wavefront .obj text: sRGB colours after each vertex's place, or a picture and a material beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sdi_gs.files import refuse_existing, write_atomically
from sdi_gs.files.origin import Origin
from sdi_gs.mesh.extraction import Texture, TriangleMesh
from sdi_gs.mesh.formats import MeshWriter
from sdi_gs.mesh.surface import mesh_library
from sdi_gs.mesh.trimesh_surface import trimesh_surface
from sdi_gs.pictures.images import png_of
from sdi_gs.settings.export import ExportOptions


def write_obj(path: Path, mesh: TriangleMesh, /, *, options: ExportOptions, origin: Origin, overwrite: bool) -> None:
    """Write a mesh whose vertices are in the file's axes (UserError as ``MeshWriter``).

    A textured one is three files: ``path``, and with its stem a .mtl and a .png; none is written if one of them exists.
    """
    if mesh.texture is not None:
        _write_textured(path, mesh, mesh.texture, overwrite=overwrite)
        return
    surface = trimesh_surface(mesh, coloured=True)
    content = mesh_library("trimesh").exchange.obj.export_obj(surface, include_normals=True, header=None).encode()
    write_atomically(path, content, overwrite=overwrite)


def _write_textured(path: Path, mesh: TriangleMesh, texture: Texture, *, overwrite: bool) -> None:
    material, picture = path.with_suffix(".mtl"), path.with_suffix(".png")
    if not overwrite:
        for file in (path, material, picture):
            refuse_existing(file)
    lines = [f"mtllib {material.name}"]
    lines += _rows("v", mesh.vertices)
    # From the lower left corner.
    lines += _rows("vt", texture.uv * [1.0, -1.0] + [0.0, 1.0])
    lines += _rows("vn", mesh.normals)
    lines.append("usemtl baked")
    lines += [f"f {a}/{a}/{a} {b}/{b}/{b} {c}/{c}/{c}" for a, b, c in (mesh.faces + 1).tolist()]
    # Lit evenly: the light of the renders is in the picture.
    shade = ["newmtl baked", "Ka 1 1 1", "Kd 1 1 1", "Ks 0 0 0", "d 1", "illum 1", f"map_Kd {picture.name}"]
    write_atomically(picture, png_of(texture.picture), overwrite=overwrite)
    write_atomically(material, "\n".join([*shade, ""]).encode(), overwrite=overwrite)
    write_atomically(path, "\n".join([*lines, ""]).encode(), overwrite=overwrite)


def _rows(kind: str, values: np.ndarray) -> list[str]:
    return [f"{kind} {' '.join(f'{value:.7g}' for value in row)}" for row in values.tolist()]


WRITER: MeshWriter = write_obj
