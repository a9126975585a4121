"""Files of every splat format that is both written and read, damaged inside of what they are packed in.

A format that is added to the program is tried without a line here.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fuzzing.mesh_files import packed
from fuzzing.mutations import EXTREME_INTEGERS, damaged_bytes, damaged_lines
from fuzzing.saved_states import damage_json
from fuzzing.splat_commands import command_for
from fuzzing.targets import Case, Target
from sdi_gs.splats.formats import SPLAT_FORMATS, SplatFormat
from sdi_gs.splats.splat_cloud import SplatCloud

COUNT = 40
_BOMB_BYTES = 2**28
"""Zeros in a small archive."""
_DAMAGED = (OSError, EOFError, ValueError, LookupError, TypeError, NotImplementedError, struct.error, zlib.error)
"""What is raised on unpacking a file whose packing was damaged before."""
_HEAD = 64
"""Bytes in which formats have their numbers of splats, their degrees and offsets."""


@dataclass(frozen=True, kw_only=True)
class SplatFile:
    """A good file of a format."""

    name: str
    suffix: str
    data: bytes


def good_files(folder: Path) -> Sequence[SplatFile]:
    """Write a file of each format, without harmonics and with those of degree 2."""
    return [
        SplatFile(name=row.name, suffix=row.suffix, data=_written(row, rest, folder))
        for row in SPLAT_FORMATS
        if row.reads and row.writes and row.suffix
        for rest in (0, 8)
    ]


def _written(row: SplatFormat, rest: int, folder: Path) -> bytes:
    generator = torch.Generator().manual_seed(rest)

    def normal(*shape: int, width: float = 1.0) -> torch.Tensor:
        return width * torch.randn(COUNT, *shape, generator=generator)

    cloud = SplatCloud(
        means=normal(3, width=0.4),
        log_scales=normal(3, width=0.5) - 4.0,
        quats=normal(4),
        opacity_logit=normal(width=2.0),
        sh_dc=normal(3),
        sh_rest=normal(rest, 3, width=0.2),
    )
    path = folder / f"good-{row.name}-{rest}{row.suffix}"
    with warnings.catch_warnings():
        # What a format cannot hold does not matter here.
        warnings.simplefilter("ignore")
        row.write(path, cloud, overwrite=True)
    return path.read_bytes()


def damaged_file(good: Sequence[SplatFile], rng: np.random.Generator, folder: Path) -> Case:
    """Write a file with damage inside and outside of its packing, sometimes under another format's name."""
    file = good[int(rng.integers(len(good)))]
    data, about = file.data, [file.name]
    for _ in range(1 if rng.random() < 0.7 else 2):
        inside = _damaged_inside(data, rng) if rng.random() < 0.75 else None
        about.append("bytes" if inside is None else inside[1])
        data = damaged_bytes(data, rng) if inside is None else inside[0]
    suffix = file.suffix if rng.random() < 0.9 else good[int(rng.integers(len(good)))].suffix
    name = f"a{suffix}" if rng.random() < 0.95 else "download"
    (folder / name).write_bytes(data)
    return Case(arguments=command_for(name, rng), about=", ".join(about))


def _damaged_inside(data: bytes, rng: np.random.Generator) -> tuple[bytes, str] | None:
    """Return a file with its content damaged, and how; None for a packing that is not known or damaged already."""
    try:
        if data.startswith(b"\x1f\x8b"):
            content, how = _damaged_content(gzip.decompress(data), rng)
            return gzip.compress(content, compresslevel=1, mtime=0), f"gzip: {how}"
        if data.startswith(b"PK\x03\x04"):
            return _damaged_archive(data, rng)
        if data.startswith(b"glTF"):
            return _damaged_gltf(data, rng)
    except (*_DAMAGED, zipfile.BadZipFile):
        return None
    if data.startswith(b"ply"):
        header, end, body = data.partition(b"end_header\n")
        return damaged_lines(header, rng) + end + body, "header"
    # Zeros that are there are as many splats, which take their time.
    return _damaged_content(data, rng, longest=2**22)


def _damaged_content(data: bytes, rng: np.random.Generator, longest: int = _BOMB_BYTES) -> tuple[bytes, str]:
    """Return bytes with another number in their head, with other damage, or with very many zeros behind them."""
    chance = rng.random()
    if chance < 0.02:
        return data + bytes(longest), "very long"
    if chance < 0.6 and len(data) > _HEAD:
        place, size = int(rng.integers(_HEAD)), int((1, 2, 4, 4, 8)[rng.integers(5)])
        number = EXTREME_INTEGERS[rng.integers(len(EXTREME_INTEGERS))] % 256**size
        return data[:place] + number.to_bytes(size, "little") + data[place + size :], f"{number} at {place}"
    return damaged_bytes(data, rng), "content"


def _damaged_archive(data: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    """Return a zip with one of its files changed, missing, twice, renamed, or very long."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = [(name, archive.read(name)) for name in archive.namelist()]
    place = int(rng.integers(len(files)))
    name, content = files[place]
    how, chance = name, rng.random()
    if chance < 0.1:
        del files[place]
        how = f"{name} gone"
    elif chance < 0.15:
        files.append((name, content))
        how = f"{name} twice"
    elif chance < 0.25:
        other = ("../a", "/tmp/a", "a" * 300, "\x1b[31m", "META.JSON", name.upper())[rng.integers(6)]
        files[place] = (other, content)
        how = f"{name} is {other!r:.20}"
    elif name.endswith(".json") and rng.random() < 0.85:
        tree = json.loads(content)
        how = f"{name}: {damage_json(tree, rng)}"
        files[place] = (name, json.dumps(tree).encode())
    else:
        changed, done = _damaged_content(content, rng)
        files[place], how = (name, changed), f"{name}: {done}"
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        # Of a name that is there twice.
        warnings.simplefilter("ignore")
        for each, content in files:
            archive.writestr(zipfile.ZipInfo(each), content, zipfile.ZIP_DEFLATED)
    return out.getvalue(), f"zip: {how}"


def _damaged_gltf(data: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    """Return a .glb with its header's tree or its buffer changed."""
    length = struct.unpack_from("<I", data, 12)[0]
    tree, blob = json.loads(data[20 : 20 + length]), data[28 + length :]
    how = damage_json(tree, rng) if rng.random() < 0.7 else ""
    return packed(json.dumps(tree).encode(), blob if how else damaged_bytes(blob, rng)), f"glTF: {how or 'buffer'}"


TARGET = Target(prepare=good_files, case=damaged_file, quick=24)
