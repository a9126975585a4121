"""Damaged files and size bombs of every format that is read: one line, and not the memory that they ask for."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tracemalloc
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from PIL import Image
from splat_clouds import cloud_named

from sdi_gs.errors import UserError
from sdi_gs.runs.loading import load
from sdi_gs.splats.formats import SPLAT_FORMATS, read_splats, write_splats

READ = {row.name: row.suffix for row in SPLAT_FORMATS if row.reads and row.suffix not in ("", ".ply", ".splat")}
WRITTEN: dict[str, bytes] = {}


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    """The bytes of a small file of each format."""
    if not WRITTEN:
        for name, suffix in READ.items():
            path = tmp_path / f"whole{suffix}"
            write_splats(path, cloud_named("degree 1", 40), name)
            WRITTEN[name] = path.read_bytes()
    return WRITTEN


def outcome(path: Path, data: bytes, name: str) -> str:
    """Return the line that a file is refused with; empty where it is read. Anything else fails the test."""
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            read_splats(path, name)
        except UserError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            return str(error)
    return ""


@pytest.mark.parametrize("name", READ)
def test_a_file_cut_short_anywhere_is_refused_in_one_line(name: str, whole: dict[str, bytes], tmp_path: Path) -> None:
    data = whole[name]
    lengths = [0, 1, 3, 4, 15, 16, 19, 20, 31, *range(40, len(data) - 1, max(1, len(data) // 25)), len(data) - 1]
    for length in lengths:
        assert outcome(tmp_path / f"cut{READ[name]}", data[:length], name), f"{length} of {len(data)} bytes"


@pytest.mark.parametrize("name", READ)
def test_flipped_bytes_are_read_or_refused(name: str, whole: dict[str, bytes], tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for _ in range(60):
        data = bytearray(whole[name])
        # Half of them where the descriptions are: at the beginning, or at a zip's end.
        places = generator.integers(0, len(data), 3)
        places[:2] = generator.integers(0, 200, 2) - (200 if name == "sog" else 0)
        for place in places:
            data[int(place)] = int(generator.integers(0, 256))
        outcome(tmp_path / f"flipped{READ[name]}", bytes(data), name)


def spz(count: int, *, version: int = 3, degree: int = 0, bits: int = 12, body: bytes = b"") -> bytes:
    return gzip.compress(struct.pack("<4sIIBBBB", b"NGSP", version, count, degree, bits, 0, 0) + body)


def spz_4(count: int, streams: list[tuple[bytes, int]], *, number: int | None = None) -> bytes:
    head = struct.pack("<4sIIBBBBI12x", b"NGSP", 4, count, 0, 12, 0, len(streams) if number is None else number, 32)
    table = b"".join(struct.pack("<QQ", len(packed), raw) for packed, raw in streams)
    return head + table + b"".join(packed for packed, _ in streams)


def gltf(change: Callable[[dict[str, Any]], Any], data: bytes) -> bytes:
    """Return a binary glTF with a changed description."""
    size = struct.unpack("<I", data[12:16])[0]
    tree = json.loads(data[20 : 20 + size])
    change(tree)
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    return data[:12] + struct.pack("<I", len(text)) + b"JSON" + text + data[20 + size :]


def sog(change: Callable[[dict[str, Any], dict[str, bytes]], Any], data: bytes) -> bytes:
    """Return a .sog with a changed meta.json or changed pictures."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        members = {name: file.read(name) for name in file.namelist()}
    meta = json.loads(members["meta.json"])
    change(meta, members)
    members["meta.json"] = json.dumps(meta).encode()
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        for name, member in members.items():
            file.writestr(name, member)
    return content.getvalue()


def webp(width: int, height: int) -> bytes:
    content = io.BytesIO()
    Image.new("RGBA", (width, height)).save(content, "WEBP", lossless=True, quality=0, method=0)
    return content.getvalue()


def put(tree: dict[str, Any], value: Any, *keys: Any) -> None:
    for key in keys[:-1]:
        tree = tree[key]
    tree[keys[-1]] = value


WRONG: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "spz, version 1": (
        "spz",
        lambda _: spz(4, version=1, body=bytes(100)),
        "of version 1, and versions 2 to 4 are read",
    ),
    "spz, no splats": ("spz", lambda _: spz(0), "0 splats"),
    "spz, degree 5": ("spz", lambda _: spz(4, degree=5, body=bytes(2000)), "harmonics of degree 5"),
    "spz, 200 bits": ("spz", lambda _: spz(4, bits=200, body=bytes(80)), "200 bits behind the point"),
    "spz, more splats than bytes": ("spz", lambda _: spz(100, body=bytes(79)), "need 2000 bytes and 79 are there"),
    "spz, billions": ("spz", lambda _: spz(4_000_000_000), "more than the 10000000 that this program takes"),
    "spz, a sum that is wrong": ("spz", lambda data: data[:-8] + b"\0\0\0\0" + data[-4:], "is damaged"),
    "spz 4, streams": ("spz", lambda _: spz_4(4, [], number=3), "it has 3 streams"),
    "spz 4, sizes": ("spz", lambda _: spz_4(4, [(b"", 2**40)] * 5), "1099511627776 bytes (0 packed), not 36"),
    "spz 4, no ZSTD": ("spz", lambda _: spz_4(4, [(bytes(9), size) for size in (36, 4, 12, 12, 16)]), "0 is damaged"),
    "glb, cut": (
        "gltf-splats",
        lambda data: gltf(lambda tree: put(tree, 9**9, "accessors", 0, "count"), data),
        "cut short",
    ),
    "glb, negative": (
        "gltf-splats",
        lambda data: gltf(lambda tree: put(tree, -4, "bufferViews", 0, "byteOffset"), data),
        "no place in the file",
    ),
    "glb, no accessor": (
        "gltf-splats",
        lambda data: gltf(lambda tree: put(tree, 77, "meshes", 0, "primitives", 0, "attributes", "POSITION"), data),
        "no accessors 77",
    ),
    "glb, a loop of nodes": (
        "gltf-splats",
        lambda data: gltf(lambda tree: put(tree, [0], "nodes", 0, "children"), data),
        "within each other without an end",
    ),
    "glb, a kernel": (
        "gltf-splats",
        lambda data: gltf(
            lambda tree: put(
                tree, "box", "meshes", 0, "primitives", 0, "extensions", "KHR_gaussian_splatting", "kernel"
            ),
            data,
        ),
        "kernel box",
    ),
    "glb, mirrored": (
        "gltf-splats",
        lambda data: gltf(lambda tree: put(tree, [1, 1, -1], "nodes", 0, "scale"), data),
        "stretches or mirrors",
    ),
    "glb, another file": (
        "gltf-splats",
        lambda data: gltf(lambda tree: put(tree, "/etc/passwd", "buffers", 0, "uri"), data),
        "in another file",
    ),
    "sog, version 3": ("sog", lambda data: sog(lambda meta, _: put(meta, 3, "version"), data), "of version 3"),
    "sog, count": ("sog", lambda data: sog(lambda meta, _: put(meta, True, "count"), data), "count in its meta.json"),
    "sog, book": (
        "sog",
        lambda data: sog(lambda meta, _: put(meta, "1", "scales", "codebook"), data),
        "scales.codebook in its meta.json",
    ),
    "sog, path": (
        "sog",
        lambda data: sog(lambda meta, _: put(meta, ["../../a.webp"], "quats", "files"), data),
        "quats.files in its meta.json",
    ),
    "sog, missing": (
        "sog",
        lambda data: sog(lambda _, files: files.pop("sh0.webp"), data),
        "sh0.webp in it is missing",
    ),
    "sog, picture": (
        "sog",
        lambda data: sog(lambda _, files: files.update({"sh0.webp": files["sh0.webp"][:60]}), data),
        "its picture sh0.webp is damaged",
    ),
    "compressed, chunks": (
        "compressed-ply",
        lambda data: data.replace(b"element chunk 1", b"element chunk 2"),
        "are not those of PlayCanvas",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_does_not_go_together_is_named(wrong: str, whole: dict[str, bytes], tmp_path: Path) -> None:
    name, make, says = WRONG[wrong]
    path = tmp_path / f"wrong{READ[name]}"
    assert says in outcome(path, make(whole[name]), name)
    with pytest.raises(UserError):
        load(path)


MILLIONS = 2_000_000
BOMBS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "spz of zeros": ("spz", lambda _: spz(MILLIONS, body=bytes(20 * MILLIONS))),
    "spz that claims": ("spz", lambda _: spz(MILLIONS)),
    "spz 4 of zeros": (
        "spz",
        lambda _: spz_4(
            MILLIONS,
            [
                (zstandard.ZstdCompressor(level=1).compress(bytes(size * MILLIONS)), size * MILLIONS)
                for size in (9, 1, 3, 3, 4)
            ],
        ),
    ),
    "spz 4 that claims more": (
        "spz",
        lambda _: spz_4(40, [(zstandard.ZstdCompressor(level=1).compress(bytes(2**25)), 9 * 40)] * 5),
    ),
    "sog of one colour": (
        "sog",
        lambda data: sog(
            lambda meta, files: (
                put(meta, MILLIONS, "count"),
                files.update({name: webp(1500, 1500) for name in files if name.endswith("webp")}),
            ),
            data,
        ),
    ),
    "sog with a large picture": (
        "sog",
        lambda data: sog(lambda _, files: files.update({"quats.webp": webp(2000, 2000)}), data),
    ),
    "sog with much meta": (
        "sog",
        lambda data: sog(lambda meta, _: put(meta, " " * 2**23, "asset"), data),
    ),
    "glb that claims": (
        "gltf-splats",
        lambda data: gltf(lambda tree: [put(part, MILLIONS, "count") for part in tree["accessors"]], data),
    ),
    "glb that shows itself often": (
        "gltf-splats",
        lambda data: gltf(lambda tree: put(tree, [0] * 9_000, "scenes", 0, "nodes"), data),
    ),
    "compressed that claims": (
        "compressed-ply",
        lambda data: (
            data.replace(b"vertex 40", b"vertex 2000000")
            .replace(b"chunk 1", b"chunk 7813")
            .replace(b"sh 40", b"sh 2000000")
        ),
    ),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_before_its_memory_is_taken(bomb: str, whole: dict[str, bytes], tmp_path: Path) -> None:
    name, make = BOMBS[bomb]
    data = make(whole[name])
    assert len(data) < 2_000_000
    tracemalloc.start()
    try:
        assert outcome(tmp_path / f"bomb{READ[name]}", data, name)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Whatever is unpacked is far less than the 40 MB and more of two million splats.
    assert peak < 20_000_000


def test_a_gzip_that_ends_without_its_sum_is_cut_short(tmp_path: Path) -> None:
    packer = zlib.compressobj(wbits=31)
    body = struct.pack("<4sIIBBBB", b"NGSP", 3, 2, 0, 12, 0, 0) + bytes(40)
    unfinished = packer.compress(body) + packer.flush(zlib.Z_SYNC_FLUSH)
    assert "cut short" in outcome(tmp_path / "a.spz", unfinished, "spz")
