"""All formats that a scene is exported to, splats and meshes; imports no torch, for the command line's sake."""

from __future__ import annotations

from pathlib import Path

from sdi_gs.errors import UserError
from sdi_gs.mesh.formats import MESH_FORMATS, MeshFormat
from sdi_gs.settings.named import row_named
from sdi_gs.splats.formats import SPLAT_FORMATS, SplatFormat

ExportFormat = SplatFormat | MeshFormat

_OTHER_ENDINGS = (
    *(".spz", ".sog", ".ksplat", ".gltf", ".stl", ".off", ".3mf", ".dae", ".fbx", ".usd", ".usda", ".usdc", ".usdz"),
    *(".png", ".jpg", ".jpeg", ".gif", ".mp4", ".json", ".yaml", ".html", ".zip", ".gz", ".npz", ".pt", ".safetensors"),
)
"""Endings of files that are none of the formats: what is written under such a name, another program cannot open."""


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


def format_for(path: Path | None, name: str | None) -> ExportFormat:
    """Return the format named, or the one of the path's ending, or the first where neither is given.

    Raises UserError for an unknown name, for an ending that leaves the format open, and where the two contradict.
    """
    if name is None:
        return export_formats()[0] if path is None else format_by_suffix(path)
    chosen = export_format(name)
    if path is not None:
        refuse_other_ending(path, chosen)
    return chosen


def refuse_other_ending(path: Path, chosen: ExportFormat) -> None:
    """Raise UserError where a name ends like files of another format; an ending of no format is the user's own."""
    name = path.name.lower()
    endings = {row.suffix for row in export_formats() if row.suffix} | set(_OTHER_ENDINGS)
    if chosen.suffix and not name.endswith(chosen.suffix) and any(name.endswith(ending) for ending in endings):
        raise UserError(
            f"the name {path} ends in {path.suffix}, and format {chosen.name} is written as {chosen.suffix}: "
            f"leave the format out, or end the name in {chosen.suffix}"
        )
