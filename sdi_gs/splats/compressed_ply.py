"""PlayCanvas' compressed .ply: 16 bytes a splat within chunks of 256, whose ranges are stored with them.

A chunk's row has the range of its positions, log scales and colours; a splat's four words are shares of it: 11, 10 and
11 bits of position and of log scale, a rotation of 2 + 3 x 10 bits, and four bytes of colour and opacity. Harmonics
follow as bytes over -4..4, all red coefficients first (github.com/playcanvas/splat-transform, write-compressed-ply.ts).

Letters: N splats, C chunks, K harmonics per channel above band 0.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from sdi_gs.errors import UserError
from sdi_gs.files import disk_errors, write_atomically
from sdi_gs.files.origin import Origin
from sdi_gs.settings.export import ExportOptions
from sdi_gs.settings.frames import Frame
from sdi_gs.splats.formats import MAX_SPLATS, SplatCodec
from sdi_gs.splats.ply import ascii_line
from sdi_gs.splats.ply_columns import cast
from sdi_gs.splats.ply_header import MAGIC, PlyElement, PlyHeader, read_ply_header
from sdi_gs.splats.quantised import from_smallest_three, logits_of_bytes, morton_order, opacity_bytes, smallest_three
from sdi_gs.splats.screening import ExportReport, require_at_most, screened_after_reading, screened_for_writing
from sdi_gs.splats.splat_cloud import REST_COEFFICIENTS, SH_BAND_0, SplatCloud

CHUNK = 256
SH_REACH = 4.0
"""Largest harmonic that a byte holds."""
_RANGES = tuple(
    f"{end}_{kind}{axis}"
    for kind, axes in (("", "xyz"), ("scale_", "xyz"), ("", "rgb"))
    for end in ("min", "max")
    for axis in axes
)
_WORDS = ("packed_position", "packed_rotation", "packed_scale", "packed_color")
_PLACES, _SCALES, _COLOURS = (slice(start, start + 6) for start in (0, 6, 12))


def write_compressed_ply(
    path: Path, splats: SplatCloud, *, options: ExportOptions, origin: Origin, overwrite: bool = False
) -> ExportReport:
    """Write a cloud given in the training world, near splats next to each other (UserError as ``SplatWriter``)."""
    cloud, report = screened_for_writing(splats, path, options.frame)
    order = morton_order(cloud.means.numpy())
    ranges = np.empty((-(-len(cloud) // CHUNK), len(_RANGES)), dtype="<f4")
    words = np.empty((len(cloud), len(_WORDS)), dtype="<u4")
    words[:, 0] = _pack_111011(_shares(cloud.means.numpy()[order], ranges[:, _PLACES]))
    words[:, 1] = _rotation_words(cloud.quats.numpy()[order])
    words[:, 2] = _pack_111011(_shares(cloud.log_scales.numpy()[order], ranges[:, _SCALES]))
    colours = _shares(cloud.sh_dc.numpy()[order] * np.float32(SH_BAND_0) + np.float32(0.5), ranges[:, _COLOURS])
    words[:, 3] = opacity_bytes(cloud.opacity_logit)[order]
    for channel, shift in enumerate((24, 16, 8)):
        words[:, 3] |= _steps(colours[:, channel], 8) << np.uint32(shift)
    harmonics = cloud.sh_rest.numpy().transpose(0, 2, 1).reshape(len(cloud), -1)[order]
    stored = np.floor((harmonics / np.float32(2 * SH_REACH) + np.float32(0.5)) * 256.0).clip(0, 255).astype(np.uint8)
    header = _header(len(cloud), len(ranges), stored.shape[1], origin)
    parts = [np.ascontiguousarray(part).data.cast("B") for part in (ranges, words, stored) if part.size]
    write_atomically(path, header, *parts, overwrite=overwrite)
    return report


def read_compressed_ply(path: Path, *, frame: Frame = "viewer", max_splats: int = MAX_SPLATS) -> SplatCloud:
    """Read a cloud into the training world; ``frame`` names the file's axes.

    Raises UserError where the file is missing, damaged, no such .ply, or holds more than ``max_splats`` or more than
    its bytes can; the last two before memory is taken.
    """
    header = read_ply_header(path)
    chunks, vertices, harmonics = _elements(header, path)
    require_at_most(max_splats, vertices.count, path)
    with disk_errors(path, "read"), path.open("rb") as file:
        _require_bytes(header, path.stat().st_size, path)
        file.seek(header.body)
        tables = [_table(file, header, element) for element in header.elements]
    named = {element.name: table for element, table in zip(header.elements, tables, strict=True)}
    ranges = np.stack([cast(named[chunks.name][name], np.float32) for name in _RANGES if name in chunks.names], axis=1)
    position, rotation, scale, colour = (named[vertices.name][name].astype(np.uint32) for name in _WORDS)
    channels = np.stack([_unit(colour >> np.uint32(shift), 8) for shift in (24, 16, 8)], axis=1)
    if ranges.shape[1] == len(_RANGES):
        # Older files store colours as they are.
        channels = _within(channels, ranges[:, _COLOURS])
    cloud = SplatCloud(
        means=torch.from_numpy(_within(_unpack_111011(position), ranges[:, _PLACES])),
        log_scales=torch.from_numpy(_within(_unpack_111011(scale), ranges[:, _SCALES])),
        quats=torch.from_numpy(_quats_of(rotation)),
        opacity_logit=logits_of_bytes((colour & 255).astype(np.uint8)),
        sh_dc=torch.from_numpy((channels - np.float32(0.5)) / np.float32(SH_BAND_0)),
        sh_rest=_harmonics(None if harmonics is None else named[harmonics.name], len(position)),
    )
    return screened_after_reading(cloud, path, frame, is_raw=True)


def _header(count: int, chunks: int, harmonics: int, origin: Origin) -> bytes:
    lines = ["ply", "format binary_little_endian 1.0", *(f"comment {ascii_line(line)}" for line in origin.lines())]
    lines += [f"element chunk {chunks}", *(f"property float {name}" for name in _RANGES)]
    lines += [f"element vertex {count}", *(f"property uint {name}" for name in _WORDS)]
    if harmonics:
        lines += [f"element sh {count}", *(f"property uchar f_rest_{index}" for index in range(harmonics))]
    return "\n".join([*lines, "end_header", ""]).encode("ascii")


def _elements(header: PlyHeader, path: Path) -> tuple[PlyElement, PlyElement, PlyElement | None]:
    """Return the elements of chunks, splats and harmonics; UserError where they are not those of this format."""
    named = {element.name: element for element in header.elements}
    chunks, vertices, harmonics = named.get("chunk"), header.vertices, named.get("sh")
    rest = len(harmonics.names) if harmonics is not None else 0
    ranges = _RANGES if chunks is not None and "min_r" in chunks.names else _RANGES[:12]
    expected = [
        header.byte_order in ("<", ">"),
        len(named) == len(header.elements) and not any(element.has_lists for element in header.elements),
        all(len(set(element.names)) == len(element.names) for element in header.elements),
        chunks is not None and set(ranges) <= set(chunks.names) and chunks.count == -(-vertices.count // CHUNK),
        all(dict(vertices.properties).get(name) == "u4" for name in _WORDS),
        rest % 3 == 0 and rest // 3 in REST_COEFFICIENTS,
        harmonics is None
        or (harmonics.count == vertices.count and {f"f_rest_{index}" for index in range(rest)} == set(harmonics.names)),
        harmonics is None or all(kind == "u1" for _, kind in harmonics.properties),
    ]
    if chunks is None or not all(expected):
        raise UserError(
            f"cannot read {path}: its chunks, splats or harmonics are not those of PlayCanvas' compressed .ply; "
            "export it anew, or convert it to a plain .ply"
        )
    return chunks, vertices, harmonics


def _row(header: PlyHeader, element: PlyElement) -> np.dtype:
    return np.dtype([(name, header.byte_order + kind) for name, kind in element.properties])


def _require_bytes(header: PlyHeader, size: int, path: Path) -> None:
    needed = sum(element.count * _row(header, element).itemsize for element in header.elements)
    if needed > size - header.body:
        raise UserError(
            f"cannot read {path}: it is cut short, {header.vertices.count} splats need {needed} bytes and "
            f"{size - header.body} are there; copy or export it anew"
        )


def _table(file: BinaryIO, header: PlyHeader, element: PlyElement) -> np.ndarray:
    return np.fromfile(file, dtype=_row(header, element), count=element.count)


def _shares(
    values: np.ndarray,  # [N, 3]
    ranges: np.ndarray,  # [C, 6] filled here: all minima, then all maxima
) -> np.ndarray:  # [N, 3]
    """Return where values lie in the range of their chunk, 0 to 1."""
    starts = np.arange(0, len(values), CHUNK)
    ranges[:, :3] = np.minimum.reduceat(values, starts, axis=0)
    ranges[:, 3:] = np.maximum.reduceat(values, starts, axis=0)
    chunk = np.arange(len(values)) // CHUNK
    span = ranges[:, 3:] - ranges[:, :3]
    factor = np.where(span > 0.0, 1.0 / np.maximum(span, 1e-30), 0.0).astype(np.float32)
    return (values - ranges[chunk, :3]) * factor[chunk]


def _within(
    shares: np.ndarray,  # [N, 3]
    ranges: np.ndarray,  # [C, 6]
) -> np.ndarray:  # [N, 3]
    """Return values, the inverse of ``_shares``."""
    chunk = np.arange(len(shares)) // CHUNK
    low, high = ranges[chunk, :3], ranges[chunk, 3:]
    return low * (1.0 - shares) + high * shares


def _steps(shares: np.ndarray, bits: int) -> np.ndarray:
    """Return shares as unsigned numbers of some bits."""
    most = 2**bits - 1
    return np.rint(shares * np.float32(most)).clip(0, most).astype(np.uint32)


def _unit(words: np.ndarray, bits: int) -> np.ndarray:
    """Return the share in the lowest bits of words."""
    most = 2**bits - 1
    return (words & np.uint32(most)).astype(np.float32) / np.float32(most)


def _pack_111011(
    shares: np.ndarray,  # [N, 3]
) -> np.ndarray:  # [N]
    x, y, z = (_steps(shares[:, column], bits) for column, bits in enumerate((11, 10, 11)))
    return (x << np.uint32(21)) | (y << np.uint32(11)) | z


def _unpack_111011(
    words: np.ndarray,  # [N]
) -> np.ndarray:  # [N, 3]
    return np.stack([_unit(words >> np.uint32(21), 11), _unit(words >> np.uint32(11), 10), _unit(words, 11)], axis=1)


def _rotation_words(
    quats: np.ndarray,  # [N, 4] wxyz of length 1
) -> np.ndarray:  # [N]
    """Return the index of the largest part of w, x, y, z in two bits, and the three others in ten bits each."""
    largest, rest = smallest_three(quats)
    shares = _steps(rest * np.float32(np.sqrt(0.5)) + np.float32(0.5), 10)
    return (largest.astype(np.uint32) << np.uint32(30)) | (shares << np.array([20, 10, 0], np.uint32)).sum(
        axis=1, dtype=np.uint32
    )


def _quats_of(
    words: np.ndarray,  # [N]
) -> np.ndarray:  # [N, 4] wxyz
    shares = np.stack([_unit(words >> np.uint32(shift), 10) for shift in (20, 10, 0)], axis=1)
    return from_smallest_three((words >> np.uint32(30)).astype(np.int64), (shares - 0.5) * np.sqrt(2.0))


def _harmonics(table: np.ndarray | None, count: int) -> torch.Tensor:  # [N, K, 3]
    if table is None:
        return torch.zeros(count, 0, 3)
    stored = np.stack([table[f"f_rest_{index}"] for index in range(len(table.dtype.names or ()))], axis=1)
    # The middle of each byte's step, but the ends themselves.
    shares = np.concatenate([[0.0], (np.arange(1, 255) + 0.5) / 256.0, [1.0]]).astype(np.float32)
    values = (shares[stored] - np.float32(0.5)) * np.float32(2 * SH_REACH)
    return torch.from_numpy(values.reshape(count, 3, -1).transpose(0, 2, 1).copy())


def _loss(cloud: SplatCloud) -> str | None:
    moved = int((cloud.sh_rest.abs() > SH_REACH).flatten(1).any(dim=-1).sum())
    if not moved:
        return None
    return (
        f"{moved} of {len(cloud)} Gaussians have colours that a compressed .ply does not hold: its nearest are written"
    )


def _recognizes(path: Path, head: bytes) -> bool:
    if not MAGIC.match(head):
        return False
    try:
        return read_ply_header(path).is_compressed
    except UserError:
        # Whoever reads it as a plain .ply reports the fault.
        return False


CODEC = SplatCodec(read=read_compressed_ply, write=write_compressed_ply, recognizes=_recognizes, loss=_loss)
