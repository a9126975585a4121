"""Niantic's .spz: splats in 20 bytes each (65 with harmonics of degree 3), compressed; version 3 is written.

Versions 1 to 3 are one gzip: a header, then one array after the other. Version 4 has its header as it is and each array
as a ZSTD stream (github.com/nianticlabs/spz, load-spz.cc). The specification calls the axes RUB; the converters that
make these files copy those of the .ply (RDF), and so does this writer.

Letters: N splats, K harmonics per channel above band 0.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from sdi_gs.errors import UserError
from sdi_gs.files import disk_errors, require_file, write_atomically
from sdi_gs.files.origin import Origin
from sdi_gs.settings.export import ExportOptions
from sdi_gs.settings.frames import Frame
from sdi_gs.splats.formats import MAX_SPLATS, SplatCodec
from sdi_gs.splats.quantised import (
    from_smallest_three,
    logits_of_bytes,
    opacity_bytes,
    require_real,
    smallest_three,
    to_bytes,
)
from sdi_gs.splats.screening import ExportReport, require_at_most, screened_after_reading, screened_for_writing
from sdi_gs.splats.splat_cloud import REST_COEFFICIENTS, SplatCloud
from sdi_gs.splats.zstd_streams import unpacked_streams

MAGIC = b"NGSP"
LOG_SCALES = (-10.0, 255 / 16 - 10.0)
"""Logarithms of standard deviations that a byte holds, in steps of 1/16."""
_COLOUR_STEPS = 0.15 * 255.0
"""Steps of a byte per unit of a coefficient of band 0, whose middle is 127.5."""
_HEADER = struct.Struct("<4sIIBBBB")
_PLAIN_HEADER = struct.Struct("<4sIIBBBBI12x")
"""Version 4's: with the number of streams in place of a reserved byte, and the position of their table."""
_USUAL_BITS = 12
_MOST = 2**23 - 1
"""Largest number of 24 bits with a sign."""
_LARGEST_SH_DEGREE = 4
"""Degree 4 is legal and read up to 3."""


@dataclass(frozen=True, kw_only=True)
class _Header:
    version: int
    count: int
    sh_degree: int
    fractional_bits: int
    streams: int = 0
    table: int = 0
    """Of version 4: how many streams there are, and where their sizes stand."""

    @property
    def sizes(self) -> list[int]:
        """Bytes of the arrays: positions, opacities, colours, scales, rotations, harmonics."""
        harmonics = 3 * ((self.sh_degree + 1) ** 2 - 1)
        return [self.count * size for size in (9, 1, 3, 3, 3 if self.version == 2 else 4, harmonics)]


def write_spz(
    path: Path, splats: SplatCloud, *, options: ExportOptions, origin: Origin, overwrite: bool = False
) -> ExportReport:
    """Write a cloud given in the training world (UserError as ``SplatWriter``).

    Raises UserError for positions beyond 24 bits as well.
    """
    cloud, report = screened_for_writing(splats, path, options.frame)
    bits = _fractional_bits(cloud.means.numpy(), path)
    degree = REST_COEFFICIENTS.index(cloud.sh_rest.shape[1])
    packer = zlib.compressobj(6, wbits=31)
    chunks = [packer.compress(_HEADER.pack(MAGIC, 3, len(cloud), degree, bits, 0, 0))]
    chunks.append(packer.compress(_position_bytes(cloud.means.numpy(), bits)))
    chunks.append(packer.compress(opacity_bytes(cloud.opacity_logit).data))
    chunks.append(packer.compress(to_bytes(cloud.sh_dc.numpy() * _COLOUR_STEPS + 127.5).data))
    chunks.append(packer.compress(to_bytes((cloud.log_scales.numpy() - LOG_SCALES[0]) * 16.0).data))
    chunks.append(packer.compress(_rotation_words(cloud.quats.numpy()).data))
    # The reference library keeps 4 or 5 of these 8 bits; all 8 are legal, and 10 dB better.
    chunks.append(packer.compress(to_bytes(cloud.sh_rest.numpy() * 128.0 + 128.0).data))
    write_atomically(path, *chunks, packer.flush(), overwrite=overwrite)
    return report


def read_spz(path: Path, *, frame: Frame = "viewer", max_splats: int = MAX_SPLATS) -> SplatCloud:
    """Read a cloud of version 2, 3 or 4 into the training world; ``frame`` names the file's axes.

    Raises UserError where the file is missing, damaged, of another version, or holds more than ``max_splats`` or more
    than its bytes can; the last two before memory is taken.
    """
    with disk_errors(path, "read"):
        require_file(path)
        size = path.stat().st_size
        with path.open("rb") as file:
            read = _plain_arrays if file.read(4) == MAGIC else _gzipped_arrays
            file.seek(0)
            header, arrays = read(file, size, path, max_splats)
    positions, opacities, colours, scales, rotations, harmonics = arrays
    count, kept = header.count, REST_COEFFICIENTS[min(header.sh_degree, 3)]
    rest = harmonics.reshape(count, (header.sh_degree + 1) ** 2 - 1, 3)[:, :kept]
    unpack = _quats_of_bytes if header.version == 2 else _quats_of_words
    cloud = SplatCloud(
        means=torch.from_numpy(_positions_of(positions, header.fractional_bits)),
        log_scales=torch.from_numpy(scales.reshape(count, 3).astype(np.float32) / 16.0 + LOG_SCALES[0]),
        quats=torch.from_numpy(unpack(rotations)),
        opacity_logit=logits_of_bytes(opacities),
        sh_dc=torch.from_numpy((colours.reshape(count, 3).astype(np.float32) - 127.5) / _COLOUR_STEPS),
        sh_rest=torch.from_numpy((rest.astype(np.float32) - 128.0) / 128.0),
    )
    return screened_after_reading(cloud, path, frame, is_raw=True)


def _gzipped_arrays(file: BinaryIO, size: int, path: Path, max_splats: int) -> tuple[_Header, list[np.ndarray]]:
    """Return the header and arrays of versions 1 to 3; never unpacks more than the header declares."""
    unpacker = zlib.decompressobj(wbits=31)
    try:
        start = unpacker.decompress(file.read(4096), _HEADER.size)
        if len(start) < _HEADER.size or not start.startswith(MAGIC):
            raise UserError(f"cannot read {path}: it does not begin as an .spz does; copy or export it anew")
        _, version, count, degree, bits, _, _ = _HEADER.unpack(start)
        header = _Header(version=version, count=count, sh_degree=degree, fractional_bits=bits)
        _require_readable(header, (2, 3), size, path, max_splats)
        needed = sum(header.sizes)
        # What does not shrink grows by less than a thousandth.
        rest = file.read(needed + needed // 1000 + 4096)
        body = unpacker.decompress(unpacker.unconsumed_tail + rest, needed)
        if len(body) < needed:
            raise UserError(_cut_short(path, count, needed, len(body)))
        # The sum at the end of the gzip; extensions may stand before it.
        unpacker.decompress(unpacker.unconsumed_tail, 65536)
        if not unpacker.eof and not unpacker.unconsumed_tail:
            raise UserError(_cut_short(path, count, needed, len(body)))
    except zlib.error as error:
        raise UserError(f"cannot read {path}: its compressed content is damaged; copy or export it anew") from error
    ends = np.cumsum(header.sizes)[:-1]
    return header, np.split(np.frombuffer(body, dtype=np.uint8), ends)


def _plain_arrays(file: BinaryIO, size: int, path: Path, max_splats: int) -> tuple[_Header, list[np.ndarray]]:
    """Return the header and arrays of version 4; never unpacks more than the header declares."""
    start = file.read(_PLAIN_HEADER.size)
    if len(start) < _PLAIN_HEADER.size:
        raise UserError(f"cannot read {path}: it is cut short, in its header; copy or export it anew")
    _, version, count, degree, bits, _, streams, table = _PLAIN_HEADER.unpack(start)
    header = _Header(version=version, count=count, sh_degree=degree, fractional_bits=bits, streams=streams, table=table)
    _require_readable(header, (4,), size, path, max_splats)
    sizes = [needed for needed in header.sizes if needed]
    if streams != len(sizes):
        raise UserError(
            f"cannot read {path}: it has {streams} streams, and harmonics of degree {degree} make {len(sizes)}; "
            "export it anew"
        )
    bodies = unpacked_streams(file, table, sizes, path)
    return header, [*bodies, *[np.empty(0, dtype=np.uint8)] * (len(header.sizes) - len(sizes))]


def _require_readable(header: _Header, versions: tuple[int, ...], size: int, path: Path, max_splats: int) -> None:
    """Raise UserError for a header of another version, of damaged numbers, or of more splats than is possible."""
    if header.version not in versions:
        raise UserError(
            f"cannot read {path}: it is an .spz of version {header.version}, and versions 2 to 4 are read; convert it "
            "to version 3 or to a .ply of splats, as SuperSplat and splat-transform do"
        )
    if not header.count or header.sh_degree > _LARGEST_SH_DEGREE or header.fractional_bits > 24:
        raise UserError(
            f"cannot read {path}: its header says {header.count} splats, harmonics of degree {header.sh_degree} and "
            f"{header.fractional_bits} bits behind the point, so it is damaged; copy or export it anew"
        )
    require_at_most(max_splats, header.count, path)
    require_real(header.count, size, path)


def _cut_short(path: Path, count: int, needed: int, there: int) -> str:
    return (
        f"cannot read {path}: it is cut short, {count} splats need {needed} bytes and {there} are there; "
        "copy or export it anew"
    )


def _fractional_bits(
    means: np.ndarray,  # [N, 3]
    path: Path,
) -> int:
    """Return the usual bits behind the point, fewer for a wide cloud and more for a small one."""
    reach = float(np.abs(means).max())
    if reach > _MOST:
        raise UserError(
            f"cannot write {path}: a splat is {reach:g} from the origin, and an .spz holds up to {_MOST}; "
            "make the object smaller with --scale, or choose format ply"
        )
    bits = _USUAL_BITS
    while reach * 2**bits > _MOST:
        bits -= 1
    while bits < 24 and reach * 2**bits < 2 ** (_USUAL_BITS - 1):
        bits += 1
    return bits


def _position_bytes(
    means: np.ndarray,  # [N, 3]
    bits: int,
) -> bytes:
    """Return coordinates as little-endian numbers of 24 bits, [N, 3, 3]."""
    fixed = np.rint(means * np.float32(2.0**bits)).astype("<i4")
    return fixed.view(np.uint8).reshape(-1, 3, 4)[:, :, :3].tobytes()


def _positions_of(
    stored: np.ndarray,  # [9 N] uint8
    bits: int,
) -> np.ndarray:  # [N, 3]
    wide = np.zeros((len(stored) // 9, 3, 4), dtype=np.uint8)
    wide[:, :, 1:] = stored.reshape(-1, 3, 3)
    # Shifted down from the upper 24 bits, so that the sign is kept.
    return (wide.view("<i4")[:, :, 0] >> 8).astype(np.float32) * np.float32(2.0**-bits)


def _rotation_words(
    quats: np.ndarray,  # [N, 4] wxyz of length 1
) -> np.ndarray:  # [N] uint32
    """Return rotations in 32 bits: index of the largest of x, y, z, w, then sign and 9 bits of each of the others."""
    largest, rest = smallest_three(np.roll(quats, -1, axis=1))
    word = largest.astype("<u4")
    sizes = np.rint(np.abs(rest) * (511.0 * np.sqrt(2.0))).clip(0, 511).astype("<u4")
    for column in range(3):
        word = (word << 10) | ((rest[:, column] < 0).astype("<u4") << 9) | sizes[:, column]
    return word.astype("<u4")


def _quats_of_words(
    stored: np.ndarray,  # [4 N] uint8
) -> np.ndarray:  # [N, 4] wxyz
    words = stored.view("<u4")
    rest = np.empty((len(words), 3), dtype=np.float32)
    for column, shift in enumerate((20, 10, 0)):
        part = words >> np.uint32(shift)
        size = (part & 511).astype(np.float32) / np.float32(511.0 * np.sqrt(2.0))
        rest[:, column] = np.where(part & 512, -size, size)
    return np.roll(from_smallest_three((words >> 30).astype(np.int64), rest), 1, axis=1)


def _quats_of_bytes(
    stored: np.ndarray,  # [3 N] uint8
) -> np.ndarray:  # [N, 4] wxyz
    """Return version 2's rotations, whose w is never negative."""
    rest = stored.reshape(-1, 3).astype(np.float32) / 127.5 - 1.0
    return from_smallest_three(np.zeros(len(rest), dtype=np.int64), rest)


def _loss(cloud: SplatCloud) -> str | None:
    low, high = LOG_SCALES
    sizes = ((cloud.log_scales < low) | (cloud.log_scales > high)).any(dim=-1)
    colours = (cloud.sh_dc.abs() > 0.5 / 0.15).any(dim=-1) | (cloud.sh_rest.abs() > 1.0).flatten(1).any(dim=-1)
    moved = int((sizes | colours).sum())
    if not moved:
        return None
    return (
        f"{moved} of {len(cloud)} Gaussians have sizes or colours that an .spz does not hold: its nearest are written"
    )


def _recognizes(path: Path, head: bytes) -> bool:
    if head.startswith(MAGIC):
        return True
    try:
        return head.startswith(b"\x1f\x8b") and zlib.decompressobj(wbits=31).decompress(head, 16).startswith(MAGIC)
    except zlib.error:
        return False


CODEC = SplatCodec(read=read_spz, write=write_spz, recognizes=_recognizes, loss=_loss)
