"""Meshes as binary .ply: sRGB colours and normals per vertex."""

from __future__ import annotations

from pathlib import Path

from sdi_gs.files import write_atomically
from sdi_gs.files.origin import Origin
from sdi_gs.mesh.extraction import TriangleMesh
from sdi_gs.mesh.formats import MeshWriter
from sdi_gs.mesh.surface import mesh_library
from sdi_gs.mesh.trimesh_surface import trimesh_surface
from sdi_gs.settings.export import ExportOptions


def write_ply(path: Path, mesh: TriangleMesh, /, *, options: ExportOptions, origin: Origin, overwrite: bool) -> None:
    """Write a mesh whose vertices are in the file's axes (UserError as ``MeshWriter``)."""
    surface = trimesh_surface(mesh, coloured=True)
    content = mesh_library("trimesh").exchange.ply.export_ply(surface, vertex_normal=True)
    write_atomically(path, content, overwrite=overwrite)


WRITER: MeshWriter = write_ply
