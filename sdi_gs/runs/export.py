"""A finished scene as one file: splats, or a mesh of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sdi_gs.contracts import Representation
from sdi_gs.errors import UserError
from sdi_gs.files import refuse_existing
from sdi_gs.files.origin import UNKNOWN, Origin
from sdi_gs.mesh.formats import MESH_FORMATS, MeshFormat
from sdi_gs.runs.export_formats import ExportFormat, export_format, format_by_suffix, refuse_other_ending
from sdi_gs.runs.loading import AnyScene, SavedScene, representation_of
from sdi_gs.runs.provenance import origin_of
from sdi_gs.settings.export import AS_IT_IS, ExportOptions
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
    options: ExportOptions = AS_IT_IS,
    **changes: Any,
) -> Exported:
    """Write a scene as a new file; without ``format`` the path's suffix decides.

    ``scene`` is a loaded scene, ``trainer.scene``, or a representation. ``format`` is a name from ``SPLAT_FORMATS`` or
    ``MESH_FORMATS``, or a format of your own. Fields of ``ExportOptions`` can be given one by one: ``frame="train"``.

    Raises UserError where the format is unknown or not that of the path's suffix, where the file exists, and for splats
    of a scene without.
    """
    path, options = Path(path), replace(options, **changes)
    if format is None:
        chosen = format_by_suffix(path)
    else:
        chosen = export_format(format) if isinstance(format, str) else format
        refuse_other_ending(path, chosen)
    refuse_existing(path)
    if isinstance(chosen, MeshFormat):
        return _export_mesh(scene, path, chosen, options)
    return _export_splats(scene, path, chosen, options)


def paths_for(scene: SavedScene, chosen: Sequence[ExportFormat], out: Path | None) -> list[Path]:
    """Return the path of each format's file: the usual one, or ``out``, with its ending where there are several.

    Raises UserError where one exists.
    """
    if out is None:
        paths = [default_path(scene, row) for row in chosen]
    elif len(chosen) == 1:
        paths = [out]
    else:
        paths = [out.with_name(f"{out.name}{ending_of(row)}") for row in chosen]
    for path in paths:
        refuse_existing(path)
    shared = next((path for path in paths if paths.count(path) > 1), None)
    if shared is not None:
        names = " and ".join(row.name for row, path in zip(chosen, paths, strict=True) if path == shared)
        raise UserError(f"formats {names} would both be written as {shared}: export one after the other, with --out")
    return paths


def default_path(scene: SavedScene, chosen: ExportFormat) -> Path:
    """Return the usual name: with the step in the run's folder, or beside the file that the scene was loaded from."""
    kind, ending = ("mesh", "mesh") if isinstance(chosen, MeshFormat) else ("splats", "export")
    if scene.run is not None:
        return scene.run.folder.path / f"{kind}_step_{scene.run.step:06d}{ending_of(chosen)}"
    return scene.path.with_name(f"{scene.path.stem}-{ending}{ending_of(chosen)}")


def ending_of(chosen: ExportFormat) -> str:
    """Return what a format's usual file names end in; of a folder its name."""
    return chosen.suffix or f"-{chosen.name}"


def _export_splats(scene: AnyScene, path: Path, chosen: SplatFormat, options: ExportOptions) -> Exported:
    if isinstance(scene, SavedScene):
        cloud, run = scene.splats(), scene.run
        about = f", of {scene.path}" if run is None else f", after {run.step} steps"
    else:
        cloud, about = _splats_of(representation_of(scene)), ""
    written = chosen.write(path, cloud, options=options, origin=_origin_of(scene))
    report = written.report
    return Exported(
        path=path,
        summary=f"{report.written} of {report.total} Gaussians{about}",
        remark="; ".join(filter(None, [report.left_out(), written.loss])) or None,
    )


def _origin_of(scene: AnyScene) -> Origin:
    run = scene.run if isinstance(scene, SavedScene) else None
    return UNKNOWN if run is None else origin_of(run.config, run.step)


def _splats_of(representation: Representation) -> SplatCloud:
    cloud = representation.splats()
    if cloud is None:
        meshes = ", ".join(row.name for row in MESH_FORMATS)
        raise UserError(f"{representation.describe()} has no splats: choose one of the mesh formats {meshes}")
    return cloud.cpu()


def _export_mesh(scene: AnyScene, path: Path, chosen: MeshFormat, options: ExportOptions) -> Exported:
    # Needs packages of the extra "mesh".
    from sdi_gs.mesh.extraction import mesh_of_scene

    triangles, report = mesh_of_scene(representation_of(scene), options.mesh)
    chosen.write(path, triangles, options=options, origin=_origin_of(scene))
    return Exported(path=path, summary=report.line())
