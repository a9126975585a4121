"""Read the header of a safetensors file: names, shapes, metadata. Free of torch; no weights are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdi_gs.errors import UserError
from sdi_gs.priors.layout import PICKLES, in_one_line, pickle_error

_LONGEST_HEADER = 100 * 2**20
_OTHER_FILES = (
    (b"version https://git-lfs", "is a pointer of Git LFS, not the file itself: run `git lfs pull` where it came from"),
    (b"GGUF", "is a GGUF file, which cannot be read: take its .safetensors twin"),
    (b"<", "is a web page, not the file itself: download it again, logged in where its site asks for that"),
)
_PICKLED = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04")


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a safetensors file contains."""

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    """Shape of each tensor by its name."""
    kinds: Mapping[str, str]
    """Type of each tensor's numbers by its name, as F16 or I64."""
    metadata: Mapping[str, str]
    """Free text by key, as the file's maker wrote it."""


def is_pickle(path: Path) -> bool:
    """Return whether a file is a pickle, by its name or its first bytes; UserError for a pointer, a page, a GGUF."""
    with path.open("rb") as file:
        begin = file.read(24)
    for magic, message in _OTHER_FILES:
        if begin.startswith(magic):
            raise UserError(f"{path} {message}")
    return path.suffix.lower() in PICKLES or begin.startswith(_PICKLED)


def read_header(path: Path) -> Header:
    """Return a file's header; UserError for pickles, for other kinds of files and for files that are cut short."""
    if path.suffix.lower() in PICKLES or is_pickle(path):
        raise pickle_error(str(path))
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        size = path.stat().st_size
        if len(start) < 8 or not 2 <= length <= min(_LONGEST_HEADER, size):
            raise UserError(f"{path} is no safetensors file, or is cut short: download it again")
        file.seek(8)
        text = file.read(length)
    content, metadata = _parsed(path, text)
    expected = 8 + length + max(entry["data_offsets"][1] for entry in content.values())
    if expected != size:
        raise UserError(f"{path} has {size} bytes where its header announces {expected}: download it again")
    _require_sound(path)
    return Header(
        path=path,
        shapes={name: tuple(entry["shape"]) for name, entry in content.items()},
        kinds={name: entry["dtype"] for name, entry in content.items()},
        metadata=metadata,
    )


def _parsed(path: Path, text: bytes) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Return the entries of all tensors, and the metadata."""
    try:
        content: dict[str, Any] = json.loads(text)
        metadata = {str(key): str(value) for key, value in (content.pop("__metadata__", None) or {}).items()}
        for entry in content.values():
            whole = [*entry["shape"], *entry["data_offsets"]]
            if not all(type(number) is int and number >= 0 for number in whole) or type(entry["dtype"]) is not str:
                raise ValueError(entry)
            if len(entry["data_offsets"]) != 2:
                raise ValueError(entry)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is no safetensors file: its header cannot be read; download it again") from error
    if not content:
        raise UserError(f"{path} contains no tensors: download it again")
    return content, metadata


def _require_sound(path: Path) -> None:
    """Raise UserError for a header that the library refuses: gaps, overlaps, sizes that are not those of the shapes."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np"):
            pass
    except (SafetensorError, OSError, ValueError, OverflowError) as error:
        raise UserError(f"{path} is no safetensors file ({in_one_line(error)}): download it again") from error
