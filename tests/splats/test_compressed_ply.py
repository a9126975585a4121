"""PlayCanvas' compressed .ply: files of other writers, and older ones without ranges of colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from node_tools import splat_transform
from splat_clouds import cloud_named, errors, nearest

from sdi_gs.errors import UserError
from sdi_gs.files.origin import Origin
from sdi_gs.splats.contents import contents_of
from sdi_gs.splats.formats import read_splats, write_splats
from sdi_gs.splats.quantised import morton_order

BOUNDS = {"means": 0.01, "log_scales": 0.01, "turns": 0.004, "opacity": 0.51 / 255, "sh_dc": 0.02, "sh_rest": 0.042}


def require_near(path: Path, name: str) -> None:
    cloud = cloud_named(name)
    apart = errors(nearest(read_splats(path, frame="viewer"), cloud), cloud)
    assert all(apart[part] <= most for part, most in BOUNDS.items()), apart


def test_files_of_gsply_are_read(tmp_path: Path) -> None:
    gsply = pytest.importorskip("gsply")
    write_splats(tmp_path / "a.ply", cloud_named("degree 1"), "ply")
    gsply.plywrite(str(tmp_path / "b.ply"), gsply.plyread(str(tmp_path / "a.ply")), compressed=True)
    [found] = [path for path in tmp_path.iterdir() if path.name != "a.ply"]
    assert contents_of(found).kind == "splats"
    require_near(found, "degree 1")


def test_files_of_splat_transform_are_read(tmp_path: Path) -> None:
    write_splats(tmp_path / "a.ply", cloud_named("degree 2"), "ply")
    splat_transform(tmp_path / "a.ply", tmp_path / "b.compressed.ply")
    require_near(tmp_path / "b.compressed.ply", "degree 2")


def test_older_files_store_colours_as_they_are(tmp_path: Path) -> None:
    cloud = cloud_named("degree 0")
    cloud.sh_dc.clamp_(-1.5, 1.5)
    write_splats(tmp_path / "a.ply", cloud, "compressed-ply", origin=Origin(prompt="ä"))
    header, body = (tmp_path / "a.ply").read_bytes().split(b"end_header\n", 1)
    assert b"comment prompt \\xe4\n" in header
    chunks = np.frombuffer(body[: 2 * 72], "<f4").reshape(2, 18)
    words = np.frombuffer(body[2 * 72 :], "<u4").reshape(300, 4).copy()
    # Colours over 0..1, as bytes.
    rgba = words[:, 3:].view(np.uint8)[:, ::-1].astype(np.float64)
    low, high = (np.repeat(chunks[:, part], 256, axis=0)[:300] for part in (slice(12, 15), slice(15, 18)))
    rgba[:, :3] = 255.0 * (low + rgba[:, :3] / 255.0 * (high - low))
    words[:, 3] = np.rint(rgba).astype(np.uint8)[:, ::-1].copy().view("<u4")[:, 0]
    lines = [line for line in header.split(b"\n") if line[-2:] not in (b"_r", b"_g", b"_b")]
    old = b"\n".join(lines) + b"end_header\n" + chunks[:, :12].tobytes() + words.tobytes()
    (tmp_path / "old.ply").write_bytes(old)
    found, new = read_splats(tmp_path / "old.ply"), read_splats(tmp_path / "a.ply")
    torch.testing.assert_close(found.means, new.means)
    torch.testing.assert_close(found.sh_dc, new.sh_dc, atol=0.51 / 255 / 0.282, rtol=0)


def test_a_plain_reader_names_the_format(tmp_path: Path) -> None:
    write_splats(tmp_path / "a.ply", cloud_named("degree 0"), "compressed-ply")
    with pytest.raises(UserError, match="it is a compressed .ply"):
        read_splats(tmp_path / "a.ply", "ply")


def test_mortons_order_keeps_neighbours_together() -> None:
    """By the definition: interleaved bits of the coordinates, the first axis lowest."""
    axis = np.arange(4, dtype=np.float32)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)

    def code(point: np.ndarray) -> int:
        return sum(((int(value) >> bit) & 1) << (3 * bit + at) for at, value in enumerate(point) for bit in range(2))

    order = morton_order(grid)
    assert [code(point) for point in grid[order]] == sorted(code(point) for point in grid)
    assert sorted(order.tolist()) == list(range(64))
    assert morton_order(np.zeros((5, 3), np.float32)).tolist() == list(range(5))
