"""What a path is, by its content: splats, points, meshes, runs, and whatever people give by mistake."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from plyfile import PlyData, PlyElement

from sdi_gs.errors import UserError
from sdi_gs.runs.loading import load
from sdi_gs.splats.contents import contents_of
from sdi_gs.splats.dot_splat import write_dot_splat
from sdi_gs.splats.ply import write_splat_ply
from sdi_gs.splats.splat_cloud import SplatCloud


def cloud(count: int = 30) -> SplatCloud:
    generator = torch.Generator().manual_seed(count)
    return SplatCloud(
        means=torch.randn(count, 3, generator=generator),
        log_scales=torch.randn(count, 3, generator=generator) - 4.0,
        quats=torch.randn(count, 4, generator=generator),
        opacity_logit=torch.linspace(-4.0, 5.0, count),
        sh_dc=torch.randn(count, 3, generator=generator),
        sh_rest=torch.zeros(count, 0, 3),
    )


def write_points(path: Path, *, text: bool = False) -> Path:
    table = np.zeros(24, dtype=[(name, "f4") for name in "xyz"])
    table["x"] = np.arange(24)
    # As MeshLab writes clouds: with a list of faces that is empty.
    faces = np.empty(0, dtype=[("vertex_indices", "i4", (3,))])
    elements = [PlyElement.describe(table, "vertex"), PlyElement.describe(faces, "face")]
    PlyData(elements, text=text).write(path)
    return path


@pytest.mark.parametrize("name", ["a.ply", "a.splat", "download", "a.obj", "a.ply.txt"])
def test_splats_are_known_whatever_their_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    for write, file_format in ((write_splat_ply, "ply"), (write_dot_splat, "splat")):
        write(path, cloud(), overwrite=True)
        found = contents_of(path)
        assert found.kind == "splats"
        assert found.splat_format is not None
        assert found.splat_format.name == file_format
        assert load(path).representation.num_points == 30


@pytest.mark.parametrize("text", [False, True])
def test_a_ply_of_points_is_told_from_a_mesh(tmp_path: Path, text: bool) -> None:
    assert contents_of(write_points(tmp_path / "p.ply", text=text)).kind == "points"
    trimesh.creation.icosphere(subdivisions=1).export(tmp_path / "m.ply", encoding="ascii" if text else "binary")
    found = contents_of(tmp_path / "m.ply")
    assert (found.kind, found.mesh_type) == ("mesh", "ply")
    assert found.seen == "a mesh of 42 vertices and 80 faces"


@pytest.mark.parametrize("kind", ["glb", "obj", "off", "stl", "stl_ascii", "gltf"])
@pytest.mark.parametrize("renamed", [False, True])
def test_meshes_are_known_whatever_their_name(tmp_path: Path, kind: str, renamed: bool) -> None:
    exported = trimesh.creation.icosphere(subdivisions=2).export(file_type=kind)
    if isinstance(exported, dict):
        exported = exported["model.gltf"]
    path = tmp_path / ("download" if renamed else f"a.{kind.removesuffix('_ascii')}")
    path.write_bytes(exported.encode() if isinstance(exported, str) else exported)
    found = contents_of(path)
    assert (found.kind, found.mesh_type) == ("mesh", kind)


def zipped(name: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(name, b"{}" * 50)
    return content.getvalue()


COMPRESSED = b"ply\nformat binary_little_endian 1.0\nelement chunk 1\nproperty float min_x\nelement vertex 1\n"
ANCHORS = b"ply\nformat binary_little_endian 1.0\nelement vertex 1\nproperty float x\nproperty float y\n"

STRANGERS: dict[str, tuple[str, bytes, str]] = {
    "gzip": ("a.ply.gz", gzip.compress(b"ply\n" + bytes(40)), "an archive; unpack it first"),
    "zip": ("a.ply", zipped("point_cloud.ply"), "an archive; unpack it first"),
    "ksplat": ("a.ksplat", bytes(40), "a .ksplat; convert it to a .ply"),
    "torch": ("chkpnt.pth", zipped("archive/data.pkl"), "a file of PyTorch's"),
    "pointer": ("a.ply", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
    "page": ("a.splat", b"\n<!DOCTYPE html><html>", "a web page; download the file itself"),
    "picture": ("a.ply", b"\x89PNG\r\n\x1a\n" * 9, "a picture"),
    "film": ("a.mp4", b"\0\0\0\x20ftypisom" + bytes(40), "a film"),
    "nothing": ("a.ply", b"", "an empty file"),
    "words": ("a.ply", b"hello", "no .ply, since it does not start with 'ply'"),
    "points as text": ("scan.xyz", b"0.1 0.2 0.3\n" * 9, "points of another format; convert it to a .ply of points"),
    "scene": ("a.usdz", zipped("scene.usdc"), "a scene; export it as .glb"),
    "unknown": ("splats", b"hello", "a file of a kind that is not known here"),
    "anchors": (
        "a.ply",
        ANCHORS + b"property float f_anchor_feat_0\nproperty float scale_0\nproperty float rot_0\nend_header\n",
        "Scaffold-GS anchors",
    ),
    "splats in glTF": (
        "a.gltf",
        b'{"extensionsUsed":["KHR_gaussian_splatting"',
        "a glTF of",
    ),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_a_file_that_cannot_be_opened_is_named_with_the_way_on(tmp_path: Path, name: str) -> None:
    file, data, says = STRANGERS[name]
    (tmp_path / file).write_bytes(data)
    assert contents_of(tmp_path / file).kind == "other"
    with pytest.raises(UserError) as refused:
        load(tmp_path / file)
    assert f"cannot open {tmp_path / file}: it is " in str(refused.value)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_points_and_meshes_are_no_scene_but_a_start(tmp_path: Path) -> None:
    trimesh.creation.box().export(tmp_path / "box.glb")
    for path, seen in ((tmp_path / "box.glb", "a mesh"), (write_points(tmp_path / "p.ply"), "a .ply of 24 points")):
        with pytest.raises(UserError, match=f"it is {seen}.*sdi-gs train --init-from {path}"):
            load(path)


def test_a_damaged_header_is_reported_by_its_reader(tmp_path: Path) -> None:
    (tmp_path / "a.ply").write_bytes(b"ply\nformat binary_little_endian 1.0\nelement vertex -3\nend_header\n")
    with pytest.raises(UserError, match="header says 'element vertex -3'"):
        contents_of(tmp_path / "a.ply")
    with pytest.raises(UserError, match="there is no such file"):
        contents_of(tmp_path / "b.ply")
