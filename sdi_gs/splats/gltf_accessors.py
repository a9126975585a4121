"""The binary glTF file: its description and its arrays, each checked against the bytes that are there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from sdi_gs.errors import UserError

_HEADER_BYTES = 20
"""Of the file and of its first part."""
_LONGEST_TREE = 64 * 2**20
_KINDS = {"5120": "<i1", "5121": "<u1", "5122": "<i2", "5123": "<u2", "5125": "<u4", "5126": "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


class GltfFile:
    """An open binary glTF whose description is read; arrays are read one by one."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        """Read the description; UserError where it is none, or damaged."""
        self._file, self._path = file, path
        head = file.read(_HEADER_BYTES)
        size = int.from_bytes(head[12:16], "little")
        if len(head) < _HEADER_BYTES or head[:4] != b"glTF" or head[16:] != b"JSON" or size > _LONGEST_TREE:
            raise self.damaged("its header is no binary glTF's")
        try:
            tree = json.loads(file.read(size))
        except (ValueError, RecursionError) as error:
            raise self.damaged("its description is no JSON") from error
        if not isinstance(tree, dict):
            raise self.damaged("its description is empty")
        self.tree: dict[str, Any] = tree
        part = file.read(8)
        self._body = _HEADER_BYTES + size + 8
        there = file.seek(0, 2) - self._body
        self._body_bytes = max(0, min(int.from_bytes(part[:4], "little"), there)) if part[4:] == b"BIN\0" else 0

    def damaged(self, what: str) -> UserError:
        """Return the error for a fault of the file."""
        return UserError(f"cannot read {self._path}: {what}; copy or export it anew")

    def entry(self, kind: str, number: Any) -> dict[str, Any]:
        """Return an entry of one of the lists; UserError where there is none."""
        entries = self.tree.get(kind)
        if isinstance(entries, list) and type(number) is int and 0 <= number < len(entries):
            found = entries[number]
            if isinstance(found, dict):
                return found
        raise self.damaged(f"it has no {kind} {str(number)[:20]}")

    def count_of(self, number: Any) -> int:
        """Return how many rows an accessor has, all of which are in the file."""
        return self._layout(number)[0]

    def array(self, number: Any, width: int) -> np.ndarray:
        """Return an accessor as float32, [rows, width], with normalised integers as shares; UserError for others."""
        count, columns, kind, start, stride = self._layout(number)
        if columns != width:
            raise self.damaged(f"its accessor {number} has {columns} numbers in a row, not {width}")
        self._file.seek(self._body + start)
        row = width * kind.itemsize
        content = self._file.read(stride * (count - 1) + row)
        values = np.ndarray((count, width), kind, content, strides=(stride, kind.itemsize)).astype(np.float32)
        if kind.kind == "f":
            return values
        if not self.entry("accessors", number).get("normalized"):
            return values
        return np.maximum(values / np.float32(np.iinfo(kind).max), np.float32(-1.0))

    def _layout(self, number: Any) -> tuple[int, int, np.dtype, int, int]:
        """Return rows, columns, type, first byte in the body and bytes from row to row."""
        accessor = self.entry("accessors", number)
        kind, width = _KINDS.get(str(accessor.get("componentType"))), _WIDTHS.get(str(accessor.get("type")))
        if kind is None or width is None or "sparse" in accessor or "bufferView" not in accessor:
            raise self.damaged(f"its accessor {number} is of a kind that is not read")
        view = self.entry("bufferViews", accessor["bufferView"])
        if "uri" in self.entry("buffers", view.get("buffer")) or view.get("buffer") != 0 or view.get("extensions"):
            raise self.damaged("its arrays are compressed or in another file")
        dtype = np.dtype(kind)
        row = width * dtype.itemsize
        places = (
            accessor.get("count"),
            accessor.get("byteOffset", 0),
            view.get("byteOffset", 0),
            view.get("byteLength"),
            view.get("byteStride", row),
        )
        known = [value for value in places if type(value) is int and 0 <= value < 2**40]
        if len(known) < len(places):
            raise self.damaged(f"its accessor {number} has no place in the file")
        count, first, start, length, stride = known
        end = first + stride * (count - 1) + row
        if not count or stride < row or end > length or start + length > self._body_bytes:
            raise self.damaged(f"it is cut short: its accessor {number} has {count} rows, which are not there")
        return count, width, dtype, start + first, stride
