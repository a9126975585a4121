"""A finished scene as one file: splats, or a mesh of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, assert_never

from sdi_gs import __version__
from sdi_gs.files import refuse_existing
from sdi_gs.representations.splat_conversion import splat_cloud
from sdi_gs.runs.loading import SavedScene
from sdi_gs.runs.provenance import ply_comments
from sdi_gs.settings.mesh import MeshConfig
from sdi_gs.splats.formats import write_splats


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written."""

    path: Path
    summary: str
    """One line about it."""
    remark: str | None = None
    """What the kind of file could not hold; None if nothing."""


def export_scene(
    scene: SavedScene,
    *,
    source: Path,
    out: Path | None,
    file_format: Literal["ply", "splat", "glb", "obj", "ply-mesh"],
    frame: Literal["viewer", "train"],
    mesh: MeshConfig,
) -> Exported:
    """Write a scene that was loaded from ``source`` as a new file.

    ``out`` None is a file in the run's folder, or beside the source where there is no run. Raises UserError where the
    file exists, and where there is nothing to make a mesh of.
    """
    match file_format:
        case "ply" | "splat":
            return _export_splats(scene, source, out, file_format, frame)
        case "glb" | "obj" | "ply-mesh":
            # Needs packages of the extra "mesh".
            from sdi_gs.mesh.extraction import mesh_of_scene
            from sdi_gs.mesh.files import SUFFIXES, write_mesh

            path = out or _path_for(scene, source, kind="mesh", suffix=SUFFIXES[file_format])
            refuse_existing(path)
            triangles, report = mesh_of_scene(scene.representation, mesh)
            write_mesh(path, triangles, file_format, frame=frame)
            return Exported(path=path, summary=report.line())
        case _:
            assert_never(file_format)


def _export_splats(
    scene: SavedScene,
    source: Path,
    out: Path | None,
    file_format: Literal["ply", "splat"],
    frame: Literal["viewer", "train"],
) -> Exported:
    run, cloud = scene.run, splat_cloud(scene.gaussians)
    path = out or _path_for(scene, source, kind="splats", suffix=f".{file_format}")
    comments = ply_comments(run.config, run.step) if run is not None else [f"sdi-gs {__version__}"]
    report = write_splats(path, cloud, file_format, frame=frame, comments=comments)
    origin = f"after {run.step} steps" if run is not None else f"of {source}"
    remark = None
    if file_format == "splat" and cloud.sh_rest.shape[1]:
        remark = "a .splat holds one colour per Gaussian: what changed with the direction of view is left out"
    return Exported(path=path, summary=f"{report.written} of {report.total} Gaussians, {origin}", remark=remark)


def _path_for(scene: SavedScene, source: Path, *, kind: Literal["splats", "mesh"], suffix: str) -> Path:
    """A file in the run's folder, else one beside the source."""
    if scene.run is not None:
        return scene.run.folder.path / f"{kind}_step_{scene.run.step:06d}{suffix}"
    ending = "export" if kind == "splats" else "mesh"
    return source.with_name(f"{source.stem}-{ending}{suffix}")
