"""A finished scene as one file: splats, or a mesh of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sdi_gs import __version__
from sdi_gs.contracts import Representation
from sdi_gs.errors import UserError
from sdi_gs.files import refuse_existing
from sdi_gs.mesh.formats import MESH_FORMATS, MeshFormat
from sdi_gs.runs.export_formats import ExportFormat, export_format, format_by_suffix, refuse_other_ending
from sdi_gs.runs.loading import AnyScene, SavedScene, representation_of
from sdi_gs.runs.provenance import ply_comments
from sdi_gs.settings.frames import Frame
from sdi_gs.settings.mesh import MeshConfig
from sdi_gs.splats.formats import SplatFormat
from sdi_gs.splats.splat_cloud import SplatCloud


@dataclass(frozen=True, kw_only=True)
class Exported:
    """Paths of the written files."""

    path: Path
    summary: str
    """One line about it."""
    remark: str | None = None
    """What was left out, and what the format could not hold; None if nothing."""


def export(
    scene: AnyScene,
    path: Path | str,
    *,
    format: ExportFormat | str | None = None,
    frame: Frame = "viewer",
    mesh: MeshConfig | None = None,
) -> Exported:
    """Write a scene as a new file; without ``format`` the path's suffix decides.

    ``scene`` is a loaded scene, ``trainer.scene``, or a representation. ``format`` is a name from ``SPLAT_FORMATS`` or
    ``MESH_FORMATS``, or a format of your own. ``frame`` names the file's axes; ``mesh`` holds the settings of a mesh.

    Raises UserError where the format is unknown or not that of the path's suffix, where the file exists, and for splats
    of a scene without.
    """
    path = Path(path)
    if format is None:
        chosen = format_by_suffix(path)
    else:
        chosen = export_format(format) if isinstance(format, str) else format
        refuse_other_ending(path, chosen)
    refuse_existing(path)
    if isinstance(chosen, MeshFormat):
        return _export_mesh(representation_of(scene), path, chosen, frame, mesh or MeshConfig())
    return _export_splats(scene, path, chosen, frame)


def default_path(scene: SavedScene, chosen: ExportFormat) -> Path:
    """Return the usual name: with the step in the run's folder, or beside the file that the scene was loaded from."""
    kind, ending = ("mesh", "mesh") if isinstance(chosen, MeshFormat) else ("splats", "export")
    if scene.run is not None:
        return scene.run.folder.path / f"{kind}_step_{scene.run.step:06d}{chosen.suffix}"
    return scene.path.with_name(f"{scene.path.stem}-{ending}{chosen.suffix}")


def _export_splats(scene: AnyScene, path: Path, chosen: SplatFormat, frame: Frame) -> Exported:
    comments, origin = [f"sdi-gs {__version__}"], ""
    if isinstance(scene, SavedScene):
        cloud, run = scene.splats(), scene.run
        origin = f", of {scene.path}" if run is None else f", after {run.step} steps"
        comments = comments if run is None else ply_comments(run.config, run.step)
    else:
        cloud = _splats_of(representation_of(scene))
    report = chosen.write(path, cloud, frame=frame, comments=comments)
    return Exported(
        path=path,
        summary=f"{report.written} of {report.total} Gaussians{origin}",
        remark="; ".join(filter(None, [report.left_out(), chosen.codec().loss(cloud)])) or None,
    )


def _splats_of(representation: Representation) -> SplatCloud:
    cloud = representation.splats()
    if cloud is None:
        meshes = ", ".join(row.name for row in MESH_FORMATS)
        raise UserError(f"{representation.describe()} has no splats: choose one of the mesh formats {meshes}")
    return cloud.cpu()


def _export_mesh(
    representation: Representation, path: Path, chosen: MeshFormat, frame: Frame, config: MeshConfig
) -> Exported:
    # Needs packages of the extra "mesh".
    from sdi_gs.mesh.extraction import mesh_of_scene

    triangles, report = mesh_of_scene(representation, config)
    chosen.write(path, triangles, frame=frame)
    return Exported(path=path, summary=report.line())
