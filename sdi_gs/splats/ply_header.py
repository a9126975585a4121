"""The header of a .ply, read as bytes: which elements the file holds, and where its rows begin.

Lines end in a line feed, as a carriage return before one or, in files of old Macs, in a carriage return alone. Comments
are ignored whatever they hold. Every fault raises a one-line UserError.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sdi_gs.errors import UserError
from sdi_gs.files import disk_errors, require_file

MAX_HEADER_BYTES = 128 * 1024
"""Longest header that is read; splat-transform has the same limit."""

MAGIC = re.compile(rb"ply[ \t]*(\r\n|\n|\r)")
"""The first line of every .ply; its group is what ends a line."""

_BYTE_ORDERS = {b"binary_little_endian": "<", b"binary_big_endian": ">", b"ascii": ""}
_TYPES = {
    **dict.fromkeys((b"char", b"int8"), "i1"),
    **dict.fromkeys((b"uchar", b"uint8"), "u1"),
    **dict.fromkeys((b"short", b"int16"), "i2"),
    **dict.fromkeys((b"ushort", b"uint16"), "u2"),
    **dict.fromkeys((b"int", b"int32"), "i4"),
    **dict.fromkeys((b"uint", b"uint32"), "u4"),
    **dict.fromkeys((b"float", b"float32"), "f4"),
    **dict.fromkeys((b"double", b"float64"), "f8"),
}


@dataclass(frozen=True, kw_only=True)
class PlyElement:
    """One kind of rows, such as vertices or faces."""

    name: str
    count: int
    properties: tuple[tuple[str, str], ...]
    """Name and numpy type of each, without a byte order; lists are not among them."""
    has_lists: bool
    """Whether its rows have lists, so that their sizes differ."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the properties that are no lists."""
        return tuple(name for name, _ in self.properties)


@dataclass(frozen=True, kw_only=True)
class PlyHeader:
    """What a header describes; its vertices are there and have properties of different names."""

    byte_order: str
    """numpy's character of it; empty for ASCII."""
    elements: tuple[PlyElement, ...]
    """In the file's order."""
    body: int
    """Position of the first row in the file, bytes."""

    @property
    def vertices(self) -> PlyElement:
        """The element of the points or splats."""
        return next(element for element in self.elements if element.name == "vertex")

    @property
    def before_vertices(self) -> tuple[PlyElement, ...]:
        """The elements whose rows precede the vertices."""
        return self.elements[: self.elements.index(self.vertices)]

    @property
    def num_faces(self) -> int:
        """Faces and strips of them: whether the file is a mesh."""
        return sum(element.count for element in self.elements if element.name in ("face", "tristrips"))

    @property
    def is_compressed(self) -> bool:
        """Whether it is PlayCanvas' compressed format, whose chunks precede the vertices."""
        return any(element.name == "chunk" for element in self.before_vertices)

    @property
    def vertex_row(self) -> np.dtype:
        """One vertex in the file; of an ASCII file, with the precision of its digits and not of the declared type."""
        kinds = self.vertices.properties
        if not self.byte_order:
            kinds = [(name, "f8" if kind == "f4" else kind) for name, kind in kinds]
        return np.dtype([(name, self.byte_order + kind) for name, kind in kinds])


def read_ply_header(path: Path) -> PlyHeader:
    """Read the header of a .ply.

    Raises UserError where ``path`` is no readable file or no .ply, and where the header is damaged or describes no
    vertices.
    """
    with disk_errors(path, "read"):
        require_file(path)
        with path.open("rb") as file:
            lines, body = _lines(file, path)
    byte_order, elements = _parsed(lines, path)
    vertices = next((element for element in elements if element.name == "vertex"), None)
    names = vertices.names if vertices is not None else ()
    if byte_order is None or vertices is None or not vertices.count or not names or len(set(names)) < len(names):
        raise UserError(
            f"cannot read {path}: its header does not describe any vertices (format, count above 0, and "
            "properties of different names); export it anew"
        )
    return PlyHeader(byte_order=byte_order, elements=tuple(elements), body=body)


def _lines(file: BinaryIO, path: Path) -> tuple[list[list[bytes]], int]:
    """Return the words of the header's lines, without the first and last line and comments, and the body's place."""
    start = file.read(MAX_HEADER_BYTES)
    first = MAGIC.match(start)
    if first is None:
        raise UserError(f"cannot read {path}: it does not start with 'ply', so it is not a .ply file")
    end_of_line = b"\r" if first[1] == b"\r" else b"\n"
    last_line = rb"\rend_header[ \t]*\r" if end_of_line == b"\r" else rb"\nend_header[ \t]*\r?\n"
    end = re.search(last_line, start[first.end() - 1 :])
    if end is None:
        raise UserError(
            f"cannot read {path}: no end_header in its first {MAX_HEADER_BYTES} bytes; "
            "the file is cut short or not a .ply"
        )
    shift = first.end() - 1
    lines = start[shift : shift + end.start()].split(end_of_line)
    words = [line.split() for line in lines]
    return [line for line in words if line and line[0] not in (b"comment", b"obj_info")], shift + end.end()


def _parsed(lines: list[list[bytes]], path: Path) -> tuple[str | None, list[PlyElement]]:
    """Return the byte order, None if it is not given, and the elements; lines behind the vertices' may be anything."""
    order: str | None = None
    elements: list[tuple[str, int, list[tuple[str, str]]]] = []
    with_lists: set[int] = set()
    for words in lines:
        current = elements[-1] if elements else None
        match words:
            case [b"format", name, b"1.0"] if name in _BYTE_ORDERS:
                order = _BYTE_ORDERS[name]
            case [b"element", name, number] if number.isdigit() and len(number) < 20:
                elements.append((name.decode("latin-1"), int(number), []))
            case [b"property", kind, name] if kind in _TYPES and current is not None:
                current[2].append((name.decode("latin-1"), _TYPES[kind]))
            case [b"property", b"list", *_] if current is not None and current[0] != "vertex":
                with_lists.add(len(elements) - 1)
            case _ if current is not None and any(name == "vertex" for name, _, _ in elements[:-1]):
                pass  # Rows after the vertices are not read.
            case _:
                raise UserError(_misplaced(b" ".join(words).decode("latin-1"), path))
    return order, [
        PlyElement(name=name, count=count, properties=tuple(properties), has_lists=index in with_lists)
        for index, (name, count, properties) in enumerate(elements)
    ]


def bytes_before_vertices(header: PlyHeader, path: Path) -> int:
    """Return the size of the rows before the vertices of a binary file; UserError where it cannot be computed."""
    return sum(
        element.count * sum(np.dtype(kind).itemsize for _, kind in element.properties)
        for element in _skippable(header, path)
    )


def rows_before_vertices(header: PlyHeader, path: Path) -> int:
    """Return the number of rows before the vertices; UserError where they cannot be skipped."""
    return sum(element.count for element in _skippable(header, path))


def _skippable(header: PlyHeader, path: Path) -> tuple[PlyElement, ...]:
    for element in header.before_vertices:
        if element.count and (element.has_lists or not element.properties):
            raise UserError(_misplaced(f"element {element.name} {element.count}", path))
    return header.before_vertices


def _misplaced(line: str, path: Path) -> str:
    return (
        f"cannot read {path}: its header says {line[:80]!r}, "
        "which has no place in a .ply of splats or points; export it anew"
    )
