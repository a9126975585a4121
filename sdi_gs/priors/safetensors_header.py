"""Read the header of a safetensors file: names, shapes, metadata. Free of torch; no weights are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdi_gs.errors import UserError
from sdi_gs.priors.layout import PICKLES, pickle_error

_LONGEST_HEADER = 100 * 2**20
_OTHER_FILES = (
    (b"version https://git-lfs", "is a pointer of Git LFS, not the file itself: run `git lfs pull` where it came from"),
    (b"GGUF", "is a GGUF file, which cannot be read: take its .safetensors twin"),
    (b"<", "is a web page, not the file itself: download it again, logged in where its site asks for that"),
)


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a safetensors file contains."""

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    """Shape of each tensor by its name."""
    metadata: Mapping[str, str]
    """Free text by key, as the file's maker wrote it."""


def read_header(path: Path) -> Header:
    """Return a file's header; UserError for pickles, for other kinds of files and for files that are cut short."""
    if path.suffix.lower() in PICKLES:
        raise pickle_error(str(path))
    with path.open("rb") as file:
        start = file.read(8)
        begin = start + file.read(16)
        for magic, message in _OTHER_FILES:
            if begin.startswith(magic):
                raise UserError(f"{path} {message}")
        if begin.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04")):
            raise pickle_error(str(path))
        length = int.from_bytes(start, "little")
        size = path.stat().st_size
        if len(start) < 8 or not 2 <= length <= min(_LONGEST_HEADER, size):
            raise UserError(f"{path} is no safetensors file, or is cut short: download it again")
        file.seek(8)
        text = file.read(length)
    shapes, metadata, expected = _parsed(path, text)
    if expected + 8 + length != size:
        raise UserError(
            f"{path} has {size} bytes where its header announces {expected + 8 + length}: download it again"
        )
    return Header(path=path, shapes=shapes, metadata=metadata)


def _parsed(path: Path, text: bytes) -> tuple[dict[str, tuple[int, ...]], dict[str, str], int]:
    """Return shapes, metadata and the bytes of all tensors."""
    try:
        content: dict[str, Any] = json.loads(text)
        metadata = {str(key): str(value) for key, value in (content.pop("__metadata__", None) or {}).items()}
        shapes = {name: tuple(int(side) for side in entry["shape"]) for name, entry in content.items()}
        expected = max((int(entry["data_offsets"][1]) for entry in content.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"{path} is no safetensors file: its header cannot be read; download it again") from error
    if not shapes:
        raise UserError(f"{path} contains no tensors: download it again")
    return shapes, metadata, expected
