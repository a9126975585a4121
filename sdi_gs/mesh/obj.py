"""Meshes as Wavefront .obj text: sRGB colours after each vertex's coordinates."""

from __future__ import annotations

from pathlib import Path

from sdi_gs.files import write_atomically
from sdi_gs.files.origin import Origin
from sdi_gs.mesh.extraction import TriangleMesh
from sdi_gs.mesh.formats import MeshWriter
from sdi_gs.mesh.surface import mesh_library
from sdi_gs.mesh.trimesh_surface import trimesh_surface
from sdi_gs.settings.export import ExportOptions


def write_obj(path: Path, mesh: TriangleMesh, /, *, options: ExportOptions, origin: Origin, overwrite: bool) -> None:
    """Write a mesh whose vertices are in the file's axes (UserError as ``MeshWriter``)."""
    surface = trimesh_surface(mesh, coloured=True)
    content = mesh_library("trimesh").exchange.obj.export_obj(surface, include_normals=True, header=None).encode()
    write_atomically(path, content, overwrite=overwrite)


WRITER: MeshWriter = write_obj
