"""A mesh file's bytes, mended before trimesh reads them: it drops in silence what it does not expect."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

from sdi_gs.errors import UserError

_STL_HEAD, _STL_FACE = 84, 50
"""Bytes of a binary STL before its faces, and of a face."""
_COLOURED = re.compile(rb"^(v[ \t]+\S+[ \t]+\S+[ \t]+\S+[ \t]+)(\S+)[ \t]+(\S+)[ \t]+(\S+)[ \t\r]*$", re.MULTILINE)
"""A vertex of an .obj with its colour."""
_MOST = 2.0
"""Colours are shares of one, unless one is above this: then all are bytes."""


def mended(content: bytes, kind: str, path: Path) -> bytes:
    """Return a file's bytes as trimesh reads them right; ``kind`` is trimesh's name of the format.

    Raises UserError for a binary STL that is cut short.
    """
    if kind == "stl":
        return _stl_of_its_length(content, path)
    if kind in ("obj", "off", "stl_ascii"):
        # Files of old Macs; a carriage return before a line feed is read by all.
        content = content if b"\n" in content else content.replace(b"\r", b"\n")
    return _with_shares(content) if kind == "obj" else content


def _stl_of_its_length(content: bytes, path: Path) -> bytes:
    """Return a binary STL without what some programs write behind its faces; text is returned as it is."""
    if len(content) < _STL_HEAD or content.lstrip().startswith(b"solid"):
        return content
    faces = int.from_bytes(content[_STL_HEAD - 4 : _STL_HEAD], "little")
    length = _STL_HEAD + _STL_FACE * faces
    if length > len(content):
        there = (len(content) - _STL_HEAD) // _STL_FACE
        raise UserError(f"cannot read {path}: it is cut short, {there} of its {faces} faces are there; export it anew")
    if length < len(content):
        more = len(content) - length
        warnings.warn(f"{path}: {more} bytes behind its {faces} faces are left out", stacklevel=4)
    return content[:length]


def _with_shares(content: bytes) -> bytes:
    """Return an .obj whose vertices' colours are shares of one: some programs write bytes, which would all be white."""
    found = _COLOURED.findall(content)
    try:
        largest = max((float(value) for _, *rgb in found for value in rgb), default=0.0)
    except ValueError:
        # No colours: a reader of .obj has to decide.
        return content
    if not _MOST < largest <= 255.0:
        return content

    def shares(line: re.Match[bytes]) -> bytes:
        return line[1] + " ".join(f"{float(line[place]) / 255.0:.6f}" for place in (2, 3, 4)).encode()

    return _COLOURED.sub(shares, content)
