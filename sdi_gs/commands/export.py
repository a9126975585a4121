"""``sdi-gs export``: a finished scene as one file, splats or a mesh."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sdi_gs.commands.common import print_paths
from sdi_gs.console import print_lines, say
from sdi_gs.mesh.formats import MESH_FORMATS, MeshFormat
from sdi_gs.runs.export_formats import export_formats, format_for
from sdi_gs.settings.frames import Frame
from sdi_gs.settings.mesh import MeshConfig

FORMATS_HELP = (
    f"Kind of file: {'; '.join(f'{row.name} {row.summary}' for row in export_formats())}. "
    f"If not given, the one that --out ends like, or {export_formats()[0].name}."
)
FORMAT_NAMES = f"{{{','.join(row.name for row in export_formats())}}}"


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write a run's latest checkpoint as a splat file or a mesh, or turn one file into another."""

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|FILE")]
    """A run folder, a checkpoint, or a splat file in the axes of splat viewers."""
    format: Annotated[str | None, tyro.conf.arg(help=FORMATS_HELP, metavar=FORMAT_NAMES)] = None
    out: Path | None = None
    """The file, which must not exist; a name with the step in the run folder or beside the source if not given."""
    frame: Frame = "viewer"
    """Axes of the file: those of splat viewers (for a mesh glTF's: y up, front along z), or those of training."""
    mesh: MeshConfig = MeshConfig()

    def __post_init__(self) -> None:
        chosen = format_for(self.out, self.format)
        if not isinstance(chosen, MeshFormat) and self.mesh != MeshConfig():
            raise ValueError(
                f"--mesh.* options are for meshes, not for format {chosen.name}: add --format {MESH_FORMATS[0].name}"
            )


def export_file(options: Export) -> int:
    """Write a scene as one file; print its path and a line about it."""
    from sdi_gs.runs.export import default_path, export
    from sdi_gs.runs.loading import load

    scene, chosen = load(options.source), format_for(options.out, options.format)
    path = options.out or default_path(scene, chosen)
    exported = export(scene, path, format=chosen, frame=options.frame, mesh=options.mesh)
    print_paths([exported.path])
    print_lines(exported.summary)
    if exported.remark is not None:
        say(exported.remark)
    return 0
