"""ZSTD streams of an .spz of version 4, unpacked into as many bytes as are expected and no more."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sdi_gs.errors import UserError

_ROW = struct.Struct("<QQ")
"""Of the table: packed and unpacked size."""
_MOST_WINDOW = 2**27
"""Memory that a stream may ask for to unpack it; ZSTD's own default limit."""


def unpacked_streams(file: BinaryIO, table: int, sizes: list[int], path: Path) -> list[np.ndarray]:
    """Return the arrays of bytes of a file's streams, whose table of sizes begins at ``table``.

    Raises UserError without the package, and where a stream is cut short, damaged or not of its expected size.
    """
    try:
        import zstandard
    except ImportError as error:
        raise UserError(
            f'cannot read {path}: an .spz of version 4 needs ZSTD: pip install "sdi-gs[formats]", or convert it to '
            "version 3"
        ) from error
    file.seek(table)
    rows = file.read(_ROW.size * len(sizes))
    if len(rows) < _ROW.size * len(sizes):
        raise UserError(f"cannot read {path}: it is cut short, in its table of streams; copy or export it anew")
    arrays = []
    for number, ((packed, declared), size) in enumerate(zip(_ROW.iter_unpack(rows), sizes, strict=True)):
        if declared != size or packed > size + size // 100 + 1024:
            raise UserError(
                f"cannot read {path}: its stream {number} has {declared} bytes ({packed} packed), not {size}; "
                "the file is damaged: copy or export it anew"
            )
        content = file.read(packed)
        try:
            reader = zstandard.ZstdDecompressor(max_window_size=_MOST_WINDOW).stream_reader(content)
            body = reader.read(size)
        except zstandard.ZstdError as error:
            raise UserError(f"cannot read {path}: its stream {number} is damaged; copy or export it anew") from error
        if len(content) < packed or len(body) < size:
            raise UserError(f"cannot read {path}: it is cut short, in its stream {number}; copy or export it anew")
        arrays.append(np.frombuffer(body, dtype=np.uint8))
    return arrays
