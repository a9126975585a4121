"""Reading of a binary .ply's vertices into a numpy table; every fault of the file raises a one-line UserError."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sdi_gs.errors import UserError
from sdi_gs.files import disk_errors, require_file
from sdi_gs.splats.screening import require_at_most

MAX_HEADER_BYTES = 128 * 1024
"""Longest header that is read; splat-transform has the same limit."""

_BYTE_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">"}
_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}


@dataclass(frozen=True)
class _Layout:
    """The vertices that a header describes."""

    count: int
    row: np.dtype


def read_vertex_table(path: Path, *, required: Sequence[str], max_rows: int, what: str = "splats") -> np.ndarray:
    """Return all vertices as a structured array whose fields are the file's properties; errors call them ``what``.

    Raises UserError where ``path`` is no readable file, where the header is not that of a binary .ply whose first
    element is its vertices, where a ``required`` property is missing, and where there are no vertices, too many or
    fewer than the header declares.
    """
    with disk_errors(path, "read"):
        require_file(path)
        with path.open("rb") as file:
            header = _read_header(file, path)
            layout = _parse_header(header, path)
            missing = [name for name in required if name not in (layout.row.names or ())]
            if missing:
                raise UserError(
                    f"cannot read {path}: {_kind(layout.row.names or (), what)}, "
                    f"its vertices lack {', '.join(missing)}; "
                    f"give a .ply of {what}"
                )
            require_at_most(max_rows, layout.count, path, what=what)
            body = path.stat().st_size - file.tell()
            if layout.count * layout.row.itemsize > body:
                raise UserError(
                    f"cannot read {path}: it is cut short, {layout.count} {what} need "
                    f"{layout.count * layout.row.itemsize} bytes and {body} are there; copy or export it anew"
                )
            return np.fromfile(file, dtype=layout.row, count=layout.count)


def vertex_properties(path: Path) -> tuple[str, ...]:
    """Return the names of the vertices' properties; UserError where ``path`` is no readable .ply."""
    with disk_errors(path, "read"):
        require_file(path)
        with path.open("rb") as file:
            return _parse_header(_read_header(file, path), path).row.names or ()


def _kind(names: Sequence[str], what: str) -> str:
    """Describe a file without the required properties, by those that it has."""
    if (
        what == "splats"
        and {"x", "y", "z"} <= set(names)
        and not any(name.startswith(("scale_", "rot_")) for name in names)
    ):
        return "a cloud of points or a mesh and no splats"
    return f"no {what}"


def _read_header(file: BinaryIO, path: Path) -> list[list[str]]:
    """Return the words of the header's lines, without the first and last line; seek to the first vertex."""
    start = file.read(MAX_HEADER_BYTES)
    if not re.match(rb"ply\r?\n", start):
        raise UserError(f"cannot read {path}: it does not start with 'ply', so it is not a .ply file")
    end = re.search(rb"\nend_header\r?\n", start)
    if end is None:
        raise UserError(
            f"cannot read {path}: no end_header in its first {MAX_HEADER_BYTES} bytes; "
            "the file is cut short or not a .ply"
        )
    file.seek(end.end())
    lines = start[: end.start()].decode("latin-1").splitlines()[1:]
    return [words for line in lines if (words := line.split()) and words[0] not in ("comment", "obj_info")]


def _parse_header(lines: list[list[str]], path: Path) -> _Layout:
    """Return byte order, count and properties of the vertices, which must be the first element."""
    order: str | None = None
    count: int | None = None
    properties: list[tuple[str, str]] = []
    for words in lines:
        match words:
            case ["format", "ascii", *_]:
                raise UserError(f"cannot read {path}: it is an ASCII .ply; save it as binary, as splat tools do")
            case ["format", name, "1.0"] if name in _BYTE_ORDERS:
                order = _BYTE_ORDERS[name]
            case ["element", "chunk", *_] if count is None:
                raise UserError(
                    f"cannot read {path}: it is a compressed .ply (PlayCanvas' chunks); save it as a plain .ply or "
                    "as a .splat, as SuperSplat and splat-transform do"
                )
            case ["element", "vertex", number] if count is None and number.isdecimal() and len(number) < 20:
                count = int(number)
            case ["element", _, _] if count is not None:
                break  # Elements after the vertices are not read.
            case ["property", kind, name] if kind in _TYPES and count is not None:
                properties.append((name, _TYPES[kind]))
            case _:
                raise UserError(
                    f"cannot read {path}: its header says {' '.join(words)[:80]!r}, "
                    "which has no place in a binary .ply of splats; export it anew"
                )
    names = [name for name, _ in properties]
    if order is None or not count or not names or len(set(names)) < len(names):
        raise UserError(
            f"cannot read {path}: its header does not describe any vertices (format, count above 0, and "
            "properties of different names); export it anew"
        )
    return _Layout(count=count, row=np.dtype([(name, order + kind) for name, kind in properties]))
