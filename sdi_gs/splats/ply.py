"""The standard 3D Gaussian Splatting .ply: raw float32 values, channel-major harmonics, RDF axes.

The layout is INRIA's, restricted to what SuperSplat, Spark, spz, Unity and SIBR all read: one element, always the same
properties in the same order and no others; the origin is written as comment lines.

Letters: N splats, K harmonics per channel above band 0 (0, 3, 8 or 15), P properties of a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from sdi_gs.errors import UserError
from sdi_gs.files import write_atomically
from sdi_gs.files.origin import Origin
from sdi_gs.settings.export import ExportOptions
from sdi_gs.settings.frames import Frame
from sdi_gs.splats.formats import MAX_SPLATS, SplatCodec
from sdi_gs.splats.ply_dialects import OPACITY, QUATS, SCALES, SH_DC, cloud_of, required_properties
from sdi_gs.splats.ply_header import MAGIC, read_ply_header
from sdi_gs.splats.ply_table import read_vertex_table
from sdi_gs.splats.screening import ExportReport, screened_after_reading, screened_for_writing
from sdi_gs.splats.splat_cloud import SplatCloud

COMMENT_LENGTH = 1000
"""Longest comment line in characters; splat-transform requires the end of the header within the first 128 KB."""

_MEANS = ("x", "y", "z")
_NORMALS = ("nx", "ny", "nz")


def write_splat_ply(
    path: Path,
    splats: SplatCloud,
    *,
    comments: Sequence[str] = (),
    frame: Frame = "viewer",
    overwrite: bool = False,
) -> ExportReport:
    """Write a cloud given in the training world; ``frame`` names the file's axes.

    Splats that no viewer can show are dropped and counted. Each comment is written as one ASCII line.

    Raises UserError for activated values, where no splat is left to write, where ``path`` exists (unless
    ``overwrite``), and for a full disk; the file is then absent or unchanged.
    """
    kept, report = screened_for_writing(splats, path, frame)
    rows = _rows(kept)
    write_atomically(path, _header(rows, comments), rows.data.cast("B"), overwrite=overwrite)
    return report


def read_splat_ply(path: Path, *, frame: Frame = "viewer", max_splats: int = MAX_SPLATS) -> SplatCloud:
    """Read a cloud into the training world, as float32 on the CPU; ``frame`` names the file's axes.

    Properties may have any order and type, and be those of another program's dialect (``ply_dialects``); others are
    ignored. ``screened_after_reading`` decides which splats are kept.

    Raises UserError where the file is missing, truncated, or holds more than ``max_splats``, no splats, or
    activated values.
    """
    required = required_properties(read_ply_header(path).vertices.names)
    table = read_vertex_table(path, required=required, max_rows=max_splats)
    return screened_after_reading(cloud_of(table, path), path, frame)


def _rows(cloud: SplatCloud) -> np.ndarray:
    """Return the body of the file, [N, P] little-endian float32."""
    columns = [
        cloud.means,
        torch.zeros_like(cloud.means),  # Normals: unused, but SIBR's readers assume their bytes.
        cloud.sh_dc,
        cloud.sh_rest.transpose(1, 2).flatten(1),  # [N, 3 K]: all red coefficients, then green, then blue.
        cloud.opacity_logit[:, None],
        cloud.log_scales,
        cloud.quats,
    ]
    return np.ascontiguousarray(torch.cat(columns, dim=1).numpy(), dtype="<f4")


def _header(rows: np.ndarray, comments: Sequence[str]) -> bytes:
    first, last = [*_MEANS, *_NORMALS, *SH_DC], [OPACITY, *SCALES, *QUATS]
    names = [*first, *(f"f_rest_{i}" for i in range(rows.shape[1] - len(first) - len(last))), *last]
    # Comments follow the element line: spz requires the first three lines to be exactly these.
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
    lines += [f"comment {ascii_line(comment)}" for comment in comments]
    lines += [f"property float {name}" for name in names]
    return "\n".join([*lines, "end_header", ""]).encode("ascii")


def ascii_line(text: str) -> str:
    """Make text safe for a header: one line of bounded length, non-ASCII characters as Python escapes."""
    line = " ".join(text.split()).encode("ascii", "backslashreplace").decode("ascii")
    return line[:COMMENT_LENGTH]


def _recognizes(path: Path, head: bytes) -> bool:
    """Return whether a file is a .ply whose vertices have properties that only splats have."""
    if not MAGIC.match(head):
        return False
    try:
        header = read_ply_header(path)
    except UserError:
        # Whoever reads it, splats or not, says what is wrong.
        return False
    names = set(header.vertices.names)
    # Scaffold-GS's anchors are no splats before its networks have made some of them.
    return ("f_dc_0" in names or {"scale_0", "rot_0"} <= names) and "f_anchor_feat_0" not in names


def _write(
    path: Path, cloud: SplatCloud, /, *, options: ExportOptions, origin: Origin, overwrite: bool
) -> ExportReport:
    return write_splat_ply(path, cloud, comments=origin.lines(), frame=options.frame, overwrite=overwrite)


CODEC = SplatCodec(read=read_splat_ply, write=_write, recognizes=_recognizes)
