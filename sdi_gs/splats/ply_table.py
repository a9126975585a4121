"""Reading of a .ply's vertices into a numpy table, binary or ASCII; every fault raises a one-line UserError."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sdi_gs.errors import UserError
from sdi_gs.files import disk_errors
from sdi_gs.splats.ply_header import PlyHeader, bytes_before_vertices, read_ply_header, rows_before_vertices
from sdi_gs.splats.screening import require_at_most

MAX_LINE_BYTES = 128 * 1024
"""Longest row of an ASCII file."""


def read_vertex_table(path: Path, *, required: Sequence[str], max_rows: int, what: str = "splats") -> np.ndarray:
    """Return all vertices as a structured array whose fields are the file's properties; errors call them ``what``.

    Raises UserError where ``path`` is no readable .ply, where the vertices come after rows of unknown size, where a
    ``required`` property is missing, and where there are too many vertices or fewer than the header declares.
    """
    header = read_ply_header(path)
    if header.is_compressed:
        raise UserError(
            f"cannot read {path}: it is a compressed .ply (PlayCanvas' chunks); save it as a plain .ply or "
            "as a .splat, as SuperSplat and splat-transform do"
        )
    names = header.vertices.names
    missing = [name for name in required if name not in names]
    if missing:
        raise UserError(
            f"cannot read {path}: {_kind(names, what)}, its vertices lack {', '.join(missing)}; give a .ply of {what}"
        )
    require_at_most(max_rows, header.vertices.count, path, what=what)
    with disk_errors(path, "read"), path.open("rb") as file:
        return _binary_rows(file, header, path, what) if header.byte_order else _text_rows(file, header, path, what)


def _kind(names: Sequence[str], what: str) -> str:
    """Describe a file without the required properties, by those that it has."""
    if (
        what == "splats"
        and {"x", "y", "z"} <= set(names)
        and not any(name.startswith(("scale_", "rot_")) for name in names)
    ):
        return "a cloud of points or a mesh and no splats"
    return f"no {what}"


def _binary_rows(file: BinaryIO, header: PlyHeader, path: Path, what: str) -> np.ndarray:
    row, count = header.vertex_row, header.vertices.count
    first = header.body + bytes_before_vertices(header, path)
    there = max(path.stat().st_size - first, 0)
    _require_bytes(count * row.itemsize, there, count, path, what)
    file.seek(first)
    rows = np.fromfile(file, dtype=row, count=count)
    if len(rows) < count:
        # Shortened since its size was taken.
        _require_bytes(count * row.itemsize, len(rows) * row.itemsize, count, path, what)
    return rows


def _text_rows(file: BinaryIO, header: PlyHeader, path: Path, what: str) -> np.ndarray:
    """Return the vertices of an ASCII file: one line each, numbers between blanks."""
    row, count, columns = header.vertex_row, header.vertices.count, len(header.vertices.names)
    skipped = rows_before_vertices(header, path)
    # A row has at least one digit and one blank per number, but for the last line's end: so much is needed at least.
    _require_bytes((skipped * 2) + count * 2 * columns - 1, path.stat().st_size - header.body, count, path, what)
    file.seek(header.body)
    values: list[np.ndarray] = []
    lines = islice(_lines_of(file), skipped, None)
    done = 0
    while done < count:
        block = list(islice(lines, min(count - done, 65536)))
        if not block:
            raise UserError(f"cannot read {path}: it is cut short, {done} of its {count} {what} are there")
        values.append(_numbers(block, columns, done, path))
        done += len(block)
    table = np.empty(count, dtype=row)
    joined = np.concatenate(values)
    for index, name in enumerate(header.vertices.names):
        table[name] = _as_type(joined[:, index], row[name])
    return table


def _lines_of(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines that are not blank; a carriage return ends one too."""
    while line := file.readline(MAX_LINE_BYTES):
        for part in line.split(b"\r"):
            if words := part.strip():
                yield words


def _numbers(lines: list[bytes], columns: int, done: int, path: Path) -> np.ndarray:
    """Return the numbers of some lines, [lines, columns] float64."""
    rows = []
    for index, line in enumerate(lines, start=done):
        try:
            row = list(map(float, line.split()))
        except ValueError as error:
            raise UserError(
                f"cannot read {path}: row {index} of this ASCII .ply holds what is no number ({str(error)[:80]}); "
                "export it anew"
            ) from error
        if len(row) != columns:
            raise UserError(
                f"cannot read {path}: row {index} of this ASCII .ply has {len(row)} values, not {columns}; "
                "export it anew"
            )
        rows.append(row)
    return np.array(rows, dtype=np.float64)


def _as_type(values: np.ndarray, kind: np.dtype) -> np.ndarray:
    """Return values as a column's type; where an integer cannot hold one, the nearest that it can."""
    if kind.kind == "f":
        return values.astype(kind)
    limits = np.iinfo(kind)
    return np.nan_to_num(values, nan=0.0).clip(limits.min, limits.max).astype(kind)


def _require_bytes(needed: int, there: int, count: int, path: Path, what: str) -> None:
    if needed > there:
        raise UserError(
            f"cannot read {path}: it is cut short, {count} {what} need {needed} bytes and {there} are there; "
            "copy or export it anew"
        )
