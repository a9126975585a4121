"""A finished scene as one file: splats, or a mesh of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdi_gs.errors import UserError
from sdi_gs.files import refuse_existing
from sdi_gs.mesh.formats import MeshFormat
from sdi_gs.runs.export_formats import ExportFormat, export_format, format_by_suffix, refuse_other_ending
from sdi_gs.runs.loading import AnyScene, SavedScene, representation_of
from sdi_gs.runs.splats_to_export import SplatsToExport, framing_of_scene, origin_of_scene, splats_to_export
from sdi_gs.settings.export import AS_IT_IS, ExportOptions
from sdi_gs.splats.formats import SplatFormat

if TYPE_CHECKING:
    from sdi_gs.mesh.extraction import TriangleMesh


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

    A field's splats are sampled on its surface and fitted to its renders.

    Raises UserError where the format is unknown or not that of the path's suffix, where the file exists, and for splats
    of a scene that has neither splats nor a density.
    """
    path, options = Path(path), replace(options, **changes)
    if format is None:
        chosen = format_by_suffix(path)
    else:
        chosen = export_format(format) if isinstance(format, str) else format
        refuse_other_ending(path, chosen)
    return Exporter(scene, options).write(path, chosen)


class Exporter:
    """Writes one scene in any number of formats; its splats and its mesh are made once."""

    def __init__(
        self, scene: AnyScene, options: ExportOptions = AS_IT_IS, *, after_step: Callable[[int], None] | None = None
    ) -> None:
        """``after_step`` gets the number of finished steps where splats are fitted to a field."""
        self._scene, self._options, self._after_step = scene, options, after_step

    def write(self, path: Path, chosen: ExportFormat) -> Exported:
        """Write a new file (UserError as ``export``)."""
        refuse_existing(path)
        if isinstance(chosen, MeshFormat):
            return self._write_mesh(path, chosen)
        return _export_splats(self._splats, path, chosen, self._options)

    @cached_property
    def _splats(self) -> SplatsToExport:
        return splats_to_export(self._scene, self._options, after_step=self._after_step)

    def _write_mesh(self, path: Path, chosen: MeshFormat) -> Exported:
        mesh, line = self._textured if chosen.textured and self._options.mesh.texture is not None else self._mesh
        chosen.write(path, mesh, options=self._options, origin=origin_of_scene(self._scene))
        return Exported(path=path, summary=line)

    @cached_property
    def _mesh(self) -> tuple[TriangleMesh, str]:
        # Needs packages of the extra "mesh".
        from sdi_gs.mesh.extraction import mesh_of_scene

        mesh, report = mesh_of_scene(representation_of(self._scene), self._options.mesh)
        return mesh, report.line()

    @cached_property
    def _textured(self) -> tuple[TriangleMesh, str]:
        from sdi_gs.mesh.likeness import line_of_texture
        from sdi_gs.mesh.texture import with_texture

        representation, framing = representation_of(self._scene), framing_of_scene(self._scene)
        size = self._options.mesh.texture
        assert size is not None
        mesh, line = self._mesh
        textured = with_texture(mesh, representation, framing, size)
        return textured, f"{line}; {line_of_texture(representation, framing, mesh, textured)}"


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


def _export_splats(splats: SplatsToExport, path: Path, chosen: SplatFormat, options: ExportOptions) -> Exported:
    written = chosen.write(path, splats.cloud, options=options, origin=splats.origin)
    report = written.report
    return Exported(
        path=path,
        summary=f"{report.written} of {report.total} Gaussians{splats.about}",
        remark="; ".join(filter(None, [report.left_out(), written.loss])) or None,
    )
