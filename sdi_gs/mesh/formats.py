"""The mesh formats: one row each; writing is in a module per format.

A new format is a new module that defines ``WRITER`` and a row in ``MESH_FORMATS``. No torch and no trimesh is imported
here, so that the command line can list the formats at once.

Viewers of meshes take y as up and look at an object's front along -z, as glTF's asset frame says (+y up, front +z);
the training world has z up and the front along +x.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, assert_never

from sdi_gs.errors import UserError
from sdi_gs.files.origin import UNKNOWN, Origin
from sdi_gs.settings.export import AS_IT_IS, ExportOptions
from sdi_gs.settings.frames import Frame
from sdi_gs.settings.named import row_named

if TYPE_CHECKING:
    from sdi_gs.mesh.extraction import TriangleMesh

Y_UP_FROM_TRAIN = (1, 2, 0)
"""Which training axis becomes x', y', z': x' = y, y' = z, z' = x, a rotation."""


class MeshWriter(Protocol):
    """Write a mesh whose vertices and normals are already in the file's axes and size.

    What is known of the ``origin`` is written where the format has room.

    Raises UserError where a package is missing, where ``path`` exists (unless ``overwrite``), and for a full disk.
    """

    def __call__(
        self, path: Path, mesh: TriangleMesh, /, *, options: ExportOptions, origin: Origin, overwrite: bool
    ) -> None: ...


@dataclass(frozen=True, kw_only=True)
class MeshFormat:
    """One format that meshes are written to."""

    name: str
    """Value of ``--format``."""
    suffix: str
    """End of the file's name, such as ``.glb``."""
    summary: str
    """What the format holds, for the help: completes the sentence that begins with its name."""
    module: str
    """Import path of the module that defines ``WRITER``; imported when a file is written."""
    textured: bool = False
    """Whether it can hold a texture; a mesh with one is otherwise written in the colours of its vertices."""

    def write(
        self,
        path: Path,
        mesh: TriangleMesh,
        *,
        options: ExportOptions = AS_IT_IS,
        origin: Origin = UNKNOWN,
        overwrite: bool = False,
    ) -> None:
        """Write a mesh given in the training world as the options ask (UserError as ``MeshWriter``)."""
        writer: MeshWriter = import_module(self.module).WRITER
        unit = 1.0 if options.scale is None else options.scale / _height_of(mesh)
        ready = _in_frame(mesh if unit == 1.0 else replace(mesh, vertices=mesh.vertices * unit), options.frame)
        writer(path, ready, options=options, origin=replace(origin, unit=unit), overwrite=overwrite)


MESH_FORMATS: tuple[MeshFormat, ...] = (
    MeshFormat(
        name="glb",
        suffix=".glb",
        summary="triangles in one binary glTF file",
        module="sdi_gs.mesh.glb",
        textured=True,
    ),
    MeshFormat(name="obj", suffix=".obj", summary="triangles as text", module="sdi_gs.mesh.obj", textured=True),
    MeshFormat(name="ply-mesh", suffix=".ply", summary="triangles as a binary .ply", module="sdi_gs.mesh.ply"),
)


def write_mesh(
    path: Path,
    mesh: TriangleMesh,
    file_format: MeshFormat | str,
    *,
    options: ExportOptions = AS_IT_IS,
    origin: Origin = UNKNOWN,
    overwrite: bool = False,
) -> None:
    """Write a mesh given in the training world as the options ask (UserError as ``MeshWriter``)."""
    if isinstance(file_format, str):
        file_format = row_named(MESH_FORMATS, file_format, what="format of meshes")
    file_format.write(path, mesh, options=options, origin=origin, overwrite=overwrite)


def _height_of(mesh: TriangleMesh) -> float:
    """Return the height along z; UserError for none."""
    height = float(mesh.vertices[:, 2].max() - mesh.vertices[:, 2].min()) if len(mesh.vertices) else 0.0
    if not height:
        raise UserError("this mesh has no height to scale: leave --scale out")
    return height


def _in_frame(mesh: TriangleMesh, frame: Frame) -> TriangleMesh:
    match frame:
        case "viewer" | "y-up":
            columns = list(Y_UP_FROM_TRAIN)
            return replace(mesh, vertices=mesh.vertices[:, columns], normals=mesh.normals[:, columns])
        case "train":
            return mesh
        case _:
            assert_never(frame)
