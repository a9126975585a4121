"""All formats that a scene is exported to, splats and meshes; imports no torch, for the command line's sake."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sdi_gs.errors import UserError
from sdi_gs.mesh.formats import MESH_FORMATS, MeshFormat
from sdi_gs.settings.export import AS_IT_IS, ExportOptions
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
    """Return the format whose files end like ``path``, of several the longest ending's; UserError if none matches."""
    rows = [row for row in export_formats() if row.suffix and _is_meant_by_suffix(row)]
    found = [row for row in rows if path.name.lower().endswith(row.suffix)]
    if found:
        return max(found, key=lambda row: len(row.suffix))
    suffixes = dict.fromkeys(row.suffix for row in rows)
    raise UserError(f"the name {path} leaves the format open: end it in one of {', '.join(suffixes)}, or give a format")


def formats_for(path: Path | None, names: Sequence[str]) -> list[ExportFormat]:
    """Return the formats named, or the one of the path's ending, or the first where neither is given.

    Raises UserError for an unknown name, for one given twice, for an ending that leaves the format open, and where the
    two contradict. With several formats ``path`` is the name that each one's ending is added to.
    """
    if not names:
        return [export_formats()[0] if path is None else format_by_suffix(path)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"format {twice} is given twice: leave one out")
    chosen = [export_format(name) for name in names]
    if path is not None and len(chosen) == 1:
        refuse_other_ending(path, chosen[0])
    elif path is not None and any(path.name.lower().endswith(ending) for ending in _endings()):
        raise UserError(
            f"the name {path} is for {len(chosen)} files, one of each format, and ends like one of them: "
            f"leave {path.suffix} out"
        )
    return chosen


def refuse_other_ending(path: Path, chosen: ExportFormat) -> None:
    """Raise UserError where a name ends like files of another format; an ending of no format is the user's own."""
    name, own = path.name.lower(), Path(f"a{chosen.suffix}").suffix
    if own and not name.endswith(own) and any(name.endswith(ending) for ending in _endings()):
        raise UserError(
            f"the name {path} ends in {path.suffix}, and format {chosen.name} is written as {chosen.suffix}: "
            f"leave the format out, or end the name in {chosen.suffix}"
        )


def refuse_idle_options(chosen: Sequence[ExportFormat], options: ExportOptions) -> None:
    """Raise UserError for options that none of the formats has a use for."""
    names = ", ".join(row.name for row in chosen)
    formats = f"format{'s' if len(chosen) > 1 else ''} {names}"
    if options.mesh != AS_IT_IS.mesh and not any(isinstance(row, MeshFormat) for row in chosen):
        raise UserError(f"--mesh.* options are for meshes, not for {formats}: add --format {MESH_FORMATS[0].name}")
    if options.mesh.texture is not None and not any(isinstance(row, MeshFormat) and row.textured for row in chosen):
        able = " or ".join(row.name for row in MESH_FORMATS if row.textured)
        raise UserError(f"--mesh.texture is for {able}, not for {formats}: leave it out, or choose one of them")
    if options.mesh.unlit and not any(row.name == "glb" for row in chosen):
        raise UserError(f"--mesh.unlit is for glb, not for {formats}: leave it out")
    for name in ("sh_degree", "max_splats", "drop_below", "fit_steps"):
        is_given = getattr(options, name) != getattr(AS_IT_IS, name)
        if is_given and not any(isinstance(row, SplatFormat) for row in chosen):
            raise UserError(f"--{name.replace('_', '-')} is for splats, not for {formats}: leave it out")


def _endings() -> set[str]:
    return {row.suffix for row in export_formats() if row.suffix} | set(_OTHER_ENDINGS)


def _is_meant_by_suffix(row: ExportFormat) -> bool:
    return isinstance(row, MeshFormat) or row.is_meant_by_suffix
