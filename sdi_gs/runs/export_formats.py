"""All formats that a scene is exported to, splats and meshes; imports no torch, for the command line's sake."""

from __future__ import annotations

from pathlib import Path

from sdi_gs.errors import UserError
from sdi_gs.mesh.formats import MESH_FORMATS, MeshFormat
from sdi_gs.settings.named import row_named
from sdi_gs.splats.formats import SPLAT_FORMATS, SplatFormat

ExportFormat = SplatFormat | MeshFormat


def export_formats() -> list[ExportFormat]:
    """Return every format that can be written, splats first."""
    return [*(row for row in SPLAT_FORMATS if row.writes), *MESH_FORMATS]


def export_format(name: str) -> ExportFormat:
    """Return a format by its name; UserError for an unknown one."""
    return row_named(export_formats(), name, what="format")


def format_by_suffix(path: Path) -> ExportFormat:
    """Return the first format whose files end like ``path``; UserError if none matches."""
    for row in export_formats():
        if row.suffix and path.name.lower().endswith(row.suffix):
            return row
    suffixes = dict.fromkeys(row.suffix for row in export_formats() if row.suffix)
    raise UserError(f"the name {path} leaves the format open: end it in one of {', '.join(suffixes)}, or give a format")
