"""The splat files that are read and written, told apart by what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, assert_never

from sdi_gs.errors import UserError
from sdi_gs.files import disk_errors, require_file
from sdi_gs.splats.dot_splat import read_dot_splat, write_dot_splat
from sdi_gs.splats.ply import read_splat_ply, write_splat_ply
from sdi_gs.splats.screening import ExportReport
from sdi_gs.splats.splat_cloud import Frame, SplatCloud

SplatFormat = Literal["ply", "splat"]


def read_splats(path: Path, *, frame: Frame = "viewer") -> SplatCloud:
    """Read a .ply or .splat of any origin into the training world; ``frame`` says which axes the file has.

    Raises UserError where the file is missing, damaged or of another format.
    """
    match format_of(path):
        case "ply":
            return read_splat_ply(path, frame=frame)
        case "splat":
            return read_dot_splat(path, frame=frame)
        case other:
            assert_never(other)


def write_splats(
    path: Path,
    cloud: SplatCloud,
    file_format: SplatFormat,
    *,
    frame: Frame = "viewer",
    comments: Sequence[str] = (),
    overwrite: bool = False,
) -> ExportReport:
    """Write a cloud given in the training world; only a .ply has room for comments and harmonics (UserError as they).

    ``frame`` says which axes the file gets.
    """
    match file_format:
        case "ply":
            return write_splat_ply(path, cloud, comments=comments, frame=frame, overwrite=overwrite)
        case "splat":
            return write_dot_splat(path, cloud, frame=frame, overwrite=overwrite)
        case _:
            assert_never(file_format)


def format_of(path: Path) -> SplatFormat:
    """A file's format: by its first bytes, since a .ply is known by them, else by its name, since a .splat is not.

    Raises UserError where it is missing or neither of the two.
    """
    with disk_errors(path, "read"):
        require_file(path)
        with path.open("rb") as file:
            start = file.read(4)
    if start in (b"ply\n", b"ply\r"):
        return "ply"
    match path.suffix.lower():
        case ".splat":
            return "splat"
        case ".ply":
            raise UserError(f"cannot read {path}: it does not start with 'ply', so it is not a .ply file")
        case suffix:
            raise UserError(
                f"cannot read {path}: {f'{suffix} files are' if suffix else 'it is'} none of the formats that this "
                "program opens; give a .ply of splats, an antimatter15 .splat, a run folder or a checkpoint of one"
            )
