"""Niantic's .spz: files of other writers and versions, and what a small, a wide or an extreme cloud becomes."""

from __future__ import annotations

import gzip
import struct
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from splat_clouds import cloud_named, errors

from sdi_gs.errors import UserError
from sdi_gs.splats.formats import read_splats, write_splats
from sdi_gs.splats.splat_cloud import SplatCloud, in_frame
from sdi_gs.splats.spz import LOG_SCALES


def gsplys(cloud: SplatCloud, path: Path, version: int) -> None:
    """Write a cloud as it is with gsply."""
    gsply = pytest.importorskip("gsply")
    parts = {"means": cloud.means, "scales": cloud.log_scales, "quats": cloud.quats, "opacities": cloud.opacity_logit}
    arrays = {name: value.numpy().copy() for name, value in parts.items()}
    data = gsply.GSData.from_arrays(
        sh0=cloud.sh_dc.numpy().copy(), shN=cloud.sh_rest.numpy().copy(), format="ply", **arrays
    )
    gsply.write_spz(str(path), data, version=version)


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("name", ["degree 1", "degree 3"])
def test_files_of_gsply_are_read(name: str, version: int, tmp_path: Path) -> None:
    cloud = cloud_named(name)
    gsplys(cloud, tmp_path / "a.spz", version)
    # A name says nothing.
    (tmp_path / "a.spz").rename(tmp_path / "download")
    apart = errors(read_splats(tmp_path / "download", frame="train"), cloud)
    bounds = {"means": 0.51 / 4096, "log_scales": 0.51 / 16, "turns": 0.005, "opacity": 0.002, "sh_rest": 0.51 / 128}
    assert all(apart[part] <= most for part, most in bounds.items()), apart


def test_version_2_is_read(tmp_path: Path) -> None:
    """By the specification: rotations are x, y, z in bytes over -1..1, and w is what is left."""
    quats = torch.nn.functional.normalize(torch.tensor([[0.9, 0.1, -0.3, 0.2], [0.5, -0.5, 0.5, 0.5]]), dim=1)
    header = struct.pack("<4sIIBBBB", b"NGSP", 2, 2, 0, 8, 0, 0)
    places = b"".join(value.to_bytes(3, "little", signed=True) for value in (256, -512, 0, 1, -1, 8_388_607))
    turns = np.rint((quats[:, 1:].numpy() + 1.0) * 127.5).astype(np.uint8).tobytes()
    content = header + places + bytes([128, 255]) + bytes([127] * 6) + bytes([160] * 6) + turns
    (tmp_path / "a.spz").write_bytes(gzip.compress(content))
    cloud = read_splats(tmp_path / "a.spz", frame="train")
    expected = torch.tensor([[1.0, -2.0, 0.0], [1 / 256, -1 / 256, 8_388_607 / 256]])
    torch.testing.assert_close(cloud.means, expected)
    assert (cloud.quats * quats).sum(dim=1).abs().min() > 0.9999
    torch.testing.assert_close(cloud.log_scales, torch.zeros(2, 3))
    torch.testing.assert_close(cloud.opacity_logit[0].sigmoid(), torch.tensor(128 / 255))


def test_version_4_without_its_package_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gsplys(cloud_named("degree 0"), tmp_path / "a.spz", 4)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(UserError, match=r'version 4 needs ZSTD: pip install "sdi-gs\[formats\]", or convert'):
        read_splats(tmp_path / "a.spz")


@pytest.mark.parametrize(("factor", "bits"), [(1e-3, 19), (0.3, 12), (1.0, 12), (3000.0, 9)])
def test_small_and_wide_clouds_have_the_bits_that_they_need(factor: float, bits: int, tmp_path: Path) -> None:
    cloud = cloud_named("degree 0")
    reach = cloud.means.abs().max()
    cloud = replace(cloud, means=cloud.means * (factor * 4.0 / reach))
    write_splats(tmp_path / "a.spz", cloud, "spz")
    header = gzip.decompress((tmp_path / "a.spz").read_bytes())[:16]
    found = header[13]
    assert found >= bits or factor > 1.0
    assert 4.0 * factor * 2**found < 2**23
    apart = errors(in_frame(read_splats(tmp_path / "a.spz"), "viewer"), in_frame(cloud, "viewer"))
    assert apart["means"] <= 0.51 * 2.0**-found + 1e-6 * factor


def test_a_cloud_beyond_24_bits_is_refused(tmp_path: Path) -> None:
    cloud = cloud_named("degree 0")
    with pytest.raises(UserError, match=r"a splat is 1e\+07 from the origin, and an .spz holds up to 8388607"):
        write_splats(tmp_path / "a.spz", replace(cloud, means=cloud.means.clone().fill_(1e7)), "spz")
    assert not list(tmp_path.iterdir())


def test_what_an_spz_does_not_hold_is_reported_and_moved(tmp_path: Path) -> None:
    cloud = cloud_named("degree 1")
    log_scales, sh_dc, sh_rest = cloud.log_scales.clone(), cloud.sh_dc.clone(), cloud.sh_rest.clone()
    log_scales[0, 0], log_scales[1, 1], sh_dc[2], sh_rest[3] = -12.0, 7.0, 5.0, -2.0
    spoilt = replace(cloud, log_scales=log_scales, sh_dc=sh_dc, sh_rest=sh_rest)
    done = write_splats(tmp_path / "a.spz", spoilt, "spz")
    assert str(done.loss).startswith("4 of 300 Gaussians have sizes or colours that an .spz does not hold")
    found = read_splats(tmp_path / "a.spz")
    assert (float(found.log_scales.min()), float(found.log_scales.max())) == LOG_SCALES
    assert write_splats(tmp_path / "b.spz", cloud, "spz").loss is None
