"""PlayCanvas' .sog: files of other writers, folders, codebooks, palettes and what WebP must keep."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from node_tools import splat_transform
from splat_clouds import cloud_named, errors, nearest

from sdi_gs.runs.loading import load
from sdi_gs.splats.codebooks import book_of, palette_of
from sdi_gs.splats.contents import contents_of
from sdi_gs.splats.formats import read_splats, write_splats
from sdi_gs.splats.splat_cloud import in_frame

# Theirs: bytes are cut and not rounded, so that errors are a whole step; 256 numbers for six units of colour.
BOUNDS = {"means": 0.012, "log_scales": 0.12, "turns": 0.03, "opacity": 1.01 / 255, "sh_dc": 0.06}


@pytest.mark.parametrize("name", ["degree 0", "extreme"])
def test_files_of_gaussforge_are_read(name: str, tmp_path: Path) -> None:
    gaussforge = pytest.importorskip("gaussforge")
    cloud = cloud_named(name)
    write_splats(tmp_path / "a.ply", cloud, "ply")
    made = gaussforge.GaussForge().convert((tmp_path / "a.ply").read_bytes(), "ply", "sog")
    (tmp_path / "b.zip").write_bytes(made["data"])
    apart = errors(nearest(read_splats(tmp_path / "b.zip"), cloud), cloud)
    assert all(apart[part] <= most for part, most in BOUNDS.items()), apart


def test_files_of_splat_transform_are_read(tmp_path: Path) -> None:
    cloud = cloud_named("degree 1")
    write_splats(tmp_path / "a.ply", cloud, "ply")
    splat_transform(tmp_path / "a.ply", tmp_path / "b.sog")
    apart = errors(nearest(read_splats(tmp_path / "b.sog"), cloud), cloud)
    assert all(apart[part] <= most for part, most in BOUNDS.items()), apart


def test_an_unpacked_folder_and_its_meta_are_opened(tmp_path: Path) -> None:
    cloud = cloud_named("degree 2")
    write_splats(tmp_path / "a.sog", cloud, "sog")
    folder = tmp_path / "a"
    with zipfile.ZipFile(tmp_path / "a.sog") as file:
        assert {info.compress_type for info in file.infolist()} == {zipfile.ZIP_STORED}
        file.extractall(folder)
    whole = read_splats(tmp_path / "a.sog")
    for path in (folder, folder / "meta.json"):
        assert contents_of(path).kind == "splats"
        torch.testing.assert_close(read_splats(path).sh_rest, whole.sh_rest)
    assert load(folder).representation.num_points == 300
    (folder / "meta.json").write_text(json.dumps({"means": 3}))
    assert contents_of(folder).kind == "other"


def test_colours_of_nearly_clear_splats_are_kept(tmp_path: Path) -> None:
    """WebP may drop colours under transparent pixels; an opacity of one step is nearly that."""
    cloud = cloud_named("degree 0")
    cloud.opacity_logit[:] = -5.4
    write_splats(tmp_path / "a.sog", cloud, "sog")
    apart = errors(nearest(read_splats(tmp_path / "a.sog"), cloud), cloud)
    assert apart["sh_dc"] < 0.03


def test_the_same_cloud_is_the_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_splats(tmp_path / f"{name}.sog", cloud_named("degree 1"), "sog")
    assert (tmp_path / "a.sog").read_bytes() == (tmp_path / "b.sog").read_bytes()


def test_a_book_has_few_values_exactly_and_many_nearly() -> None:
    few = np.array([[0.5, -1.0, 0.5], [2.0, -1.0, 7.0]], dtype=np.float32)
    book, codes = book_of(few)
    np.testing.assert_array_equal(book[codes], few)
    generator = np.random.default_rng(0)
    many = np.concatenate([generator.normal(size=9000), [30.0, -20.0]]).astype(np.float32)
    book, codes = book_of(many)
    assert (np.diff(book) >= 0).all() and len(book) == 256
    apart = np.abs(book[codes] - many)
    # No value is farther than half a step of 127 over the range, and the usual ones are far nearer.
    assert apart.max() <= 0.51 * 50 / 127
    assert np.sqrt(np.square(apart).mean()) < 0.02
    # Each value has the nearest number of all.
    assert (apart <= np.abs(book[:, None] - many).min(axis=0) + 1e-6).all()


def test_a_palette_is_exact_where_it_is_large_enough_and_near_where_not() -> None:
    generator = np.random.default_rng(0)
    groups = generator.normal(size=(16, 9)).astype(np.float32)
    rows = groups[generator.integers(0, 16, 900)] + generator.normal(size=(900, 9)).astype(np.float32) * 0.01
    palette, labels = palette_of(rows, 1024)
    np.testing.assert_array_equal(palette[labels], rows)
    palette, labels = palette_of(rows, 64)
    assert palette.shape == (64, 9) and labels.min() >= 0 and labels.max() < 64
    assert np.sqrt(np.square(palette[labels] - rows).mean()) < 0.25


def test_large_clouds_get_a_palette_and_a_line_about_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sdi_gs.splats.sog.PALETTE", 64)
    monkeypatch.setattr("sdi_gs.splats.sog.palette_of", lambda rows: palette_of(rows, 64))
    cloud = cloud_named("degree 1")
    done = write_splats(tmp_path / "a.sog", cloud, "sog")
    assert str(done.loss).startswith("harmonics of 300 Gaussians become a palette of 64")
    found = nearest(read_splats(tmp_path / "a.sog"), cloud)
    error = (in_frame(found, "viewer").sh_rest - in_frame(cloud, "viewer").sh_rest).square().mean().sqrt()
    assert error < 0.75 * cloud.sh_rest.square().mean().sqrt()
