"""What a file or folder is, by its content: the one place where all commands look.

Only where the content says nothing the name decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sdi_gs.errors import UserError
from sdi_gs.files import disk_errors
from sdi_gs.splats.formats import HEAD_BYTES, SplatFormat, format_by_content, format_by_name
from sdi_gs.splats.ply_header import MAGIC, read_ply_header
from sdi_gs.splats.signs import mesh_type_of, stranger

ContentsKind = Literal["splats", "points", "mesh", "run", "checkpoint", "other"]

CHECKPOINT_FILES = ("tensors.safetensors", "checkpoint.json")
"""A folder with one of these is a checkpoint."""
RUN_FILES = ("config.yaml", "steps.jsonl", "summary.json", "turntable.mp4", "contact_sheet.png")
"""Files of a run that are easily given in its place."""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What was found at a path."""

    kind: ContentsKind
    """``points`` and ``splats`` may be a .ply; ``other`` is whatever this program does not open."""
    seen: str
    """What it is, with an article, for messages."""
    splat_format: SplatFormat | None = None
    """The format of splats."""
    mesh_type: str = ""
    """trimesh's name of a mesh's format, by its content and not by its name: ``glb``."""
    advice: str = ""
    """What to do about a kind that cannot be opened; empty where there is nothing to say."""


def contents_of(path: Path) -> Contents:
    """Return what ``path`` is.

    Raises UserError where it is missing or cannot be read, and for a .ply whose header is damaged.
    """
    with disk_errors(path, "read"):
        if path.is_dir():
            return _folder(path)
        if not path.is_file():
            raise UserError(f"cannot read {path}: there is no such file")
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        size = path.stat().st_size
    if not head:
        return Contents(kind="other", seen="an empty file", advice="copy or export it anew")
    if path.name in CHECKPOINT_FILES:
        return Contents(kind="checkpoint", seen="a file of a checkpoint")
    if path.name in RUN_FILES and (path.parent / RUN_FILES[0]).is_file():
        return Contents(kind="other", seen="a file of a run", advice=f"give the run's folder, {path.parent}")
    row = format_by_content(path, head)
    if row is not None:
        return Contents(kind="splats", seen=row.noun, splat_format=row)
    if MAGIC.match(head):
        return _ply(path)
    found = stranger(path.name, head)
    if found is not None:
        return Contents(kind="other", seen=found.seen, advice=found.advice)
    mesh_type = mesh_type_of(path.name, head, size)
    if mesh_type:
        return Contents(kind="mesh", seen=f"a mesh ({mesh_type})", mesh_type=mesh_type)
    if path.suffix.lower() == ".ply":
        return Contents(kind="other", seen="no .ply, since it does not start with 'ply'")
    row = format_by_name(path)
    if row is not None:
        return Contents(kind="splats", seen=row.noun, splat_format=row)
    return Contents(kind="other", seen="a file of a kind that is not known here")


def _folder(path: Path) -> Contents:
    row = format_by_content(path, b"")
    if row is not None:
        return Contents(kind="splats", seen=row.noun, splat_format=row)
    if (path / RUN_FILES[0]).is_file():
        return Contents(kind="run", seen="a run")
    if any((path / name).is_file() for name in CHECKPOINT_FILES):
        return Contents(kind="checkpoint", seen="a checkpoint")
    return Contents(kind="other", seen="a folder, neither a run (no config.yaml) nor a checkpoint")


def _ply(path: Path) -> Contents:
    """Return what a .ply without splats' properties is: a mesh or points."""
    header = read_ply_header(path)
    count = header.vertices.count
    if header.num_faces:
        return Contents(kind="mesh", seen=f"a mesh of {count} vertices and {header.num_faces} faces", mesh_type="ply")
    names = header.vertices.names
    if any(name.startswith("f_anchor_feat") for name in names):
        advice = "render it with the program that trained it, and export its splats there"
        return Contents(kind="other", seen="a .ply of Scaffold-GS anchors, which need their networks", advice=advice)
    if {"x", "y", "z"} <= set(names):
        return Contents(kind="points", seen=f"a .ply of {count} points")
    return Contents(kind="other", seen=f"a .ply whose {count} vertices have no x, y, z")
