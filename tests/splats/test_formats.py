"""Splat files of other programs: gsplat's exporter, INRIA's layout as plyfile writes it, and what is neither."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gsplat.exporter import export_splats
from plyfile import PlyData, PlyElement

from sdi_gs.errors import UserError
from sdi_gs.splats.formats import format_of, read_splats, write_splats
from sdi_gs.splats.splat_cloud import SplatCloud


def make_cloud(coefficients: int, count: int = 30) -> SplatCloud:
    generator = torch.Generator().manual_seed(coefficients)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return SplatCloud(
        means=draw(count, 3),
        log_scales=draw(count, 3) - 4.0,
        quats=torch.nn.functional.normalize(draw(count, 4), dim=-1),
        opacity_logit=draw(count).clamp(-4.0, 4.0),
        sh_dc=draw(count, 3),
        sh_rest=draw(count, coefficients, 3),
    )


def assert_same(actual: SplatCloud, expected: SplatCloud) -> None:
    for name in vars(expected):
        torch.testing.assert_close(getattr(actual, name), getattr(expected, name), msg=name)


@pytest.mark.parametrize("coefficients", [0, 3, 8, 15])
def test_gsplats_export_is_read(tmp_path: Path, coefficients: int) -> None:
    cloud = make_cloud(coefficients)
    path = tmp_path / "gsplat.ply"
    export_splats(
        means=cloud.means,
        scales=cloud.log_scales,
        quats=cloud.quats,
        opacities=cloud.opacity_logit,
        sh0=cloud.sh_dc[:, None],
        shN=cloud.sh_rest,
        format="ply",
        save_to=str(path),
    )
    assert_same(read_splats(path, frame="train"), cloud)


@pytest.mark.parametrize("coefficients", [0, 3, 8, 15])
@pytest.mark.parametrize("normals", [True, False])
def test_inrias_layout_is_read_with_normals_and_without(tmp_path: Path, coefficients: int, normals: bool) -> None:
    """Built as save_ply of its gaussian_model.py builds it: one tuple of attributes per splat."""
    cloud = make_cloud(coefficients)
    names = ["x", "y", "z", *(["nx", "ny", "nz"] if normals else []), *(f"f_dc_{i}" for i in range(3))]
    names += [f"f_rest_{i}" for i in range(3 * coefficients)]
    names += ["opacity", *(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]
    parts = [
        cloud.means,
        *([torch.zeros(30, 3)] if normals else []),
        cloud.sh_dc,
        cloud.sh_rest.transpose(1, 2).flatten(start_dim=1),
        cloud.opacity_logit[:, None],
        cloud.log_scales,
        cloud.quats,
    ]
    elements = np.empty(30, dtype=[(name, "f4") for name in names])
    elements[:] = list(map(tuple, np.concatenate([part.numpy() for part in parts], axis=1)))
    PlyData([PlyElement.describe(elements, "vertex")]).write(tmp_path / "point_cloud.ply")
    assert_same(read_splats(tmp_path / "point_cloud.ply", frame="train"), cloud)


def test_each_format_is_known_by_its_content_or_name(tmp_path: Path) -> None:
    cloud = make_cloud(3)
    write_splats(tmp_path / "a.ply", cloud, "ply", comments=["made by hand"])
    write_splats(tmp_path / "a.splat", cloud, "splat")
    assert [format_of(tmp_path / name) for name in ("a.ply", "a.splat")] == ["ply", "splat"]
    # A download that lost its name is still a .ply; a .splat has nothing but its name.
    (tmp_path / "a.ply").rename(tmp_path / "download.splat")
    assert_same(read_splats(tmp_path / "download.splat"), cloud)
    (tmp_path / "a.splat").rename(tmp_path / "A.SPLAT")
    assert len(read_splats(tmp_path / "A.SPLAT")) == 30


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.spz", b"\x1f\x8b\x08\x00" * 20, ".spz files are none of the formats that this program opens; give a .ply"),
        ("splats", b"hello", "it is none of the formats"),
        ("a.ply", b"\x89PNG\r\n\x1a\n" * 9, "does not start with 'ply'"),
        ("a.splat", b"\x89PNG\r\n\x1a\n" + bytes(range(248, 128, -1))[:88], "in a .splat are never negative"),
        ("a.splat", b"\x89PNG\r\n\x1a\n", "8 bytes are 0 splats and 8 bytes more"),
    ],
    ids=["spz", "no suffix", "picture as ply", "picture as splat", "short picture as splat"],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, name: str, data: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError) as refused:
        read_splats(tmp_path / name)
    assert says in str(refused.value)
    assert str(tmp_path / name) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_folder_and_a_missing_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it is a folder"):
        read_splats(tmp_path)
    with pytest.raises(UserError, match="no such file"):
        read_splats(tmp_path / "absent.splat")
