"""Mesh files that trimesh would read as something else, without an error."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzzing.mesh_files import CORNERS, FACES, gltf

from sdi_gs.errors import UserError
from sdi_gs.representations.mesh_files import read_mesh, sample_mesh

VERTICES = [" ".join(map(str, corner)) for corner in CORNERS.astype(int).tolist()]
TRIANGLES = [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in FACES]


def sampled(path: Path) -> tuple[torch.Tensor, torch.Tensor | None]:
    return sample_mesh(path, 400, generator=torch.Generator().manual_seed(0))


def stl(*, faces: int = len(FACES), head: bytes = b"", tail: bytes = b"") -> bytes:
    body = b"".join(bytes(12) + CORNERS[face].tobytes() + bytes(2) for face in FACES)
    return head.ljust(80, b"\0") + struct.pack("<I", faces) + body + tail


@pytest.mark.parametrize("tail", [b"\0", bytes(1000), b"made by hand\n"])
def test_bytes_behind_a_binary_stl_are_left_out_and_counted(tmp_path: Path, tail: bytes) -> None:
    (tmp_path / "a.stl").write_bytes(stl(tail=tail))
    with pytest.warns(UserWarning, match=f"{len(tail)} bytes behind its 6 faces are left out"):
        parts = read_mesh(tmp_path / "a.stl")
    assert sum(len(part.faces) for part in parts) == len(FACES)


@pytest.mark.parametrize("there", [1, 5])
def test_a_binary_stl_that_is_cut_short_is_refused_as_such(tmp_path: Path, there: int) -> None:
    (tmp_path / "a.stl").write_bytes(stl()[: 84 + 50 * there + 20])
    with pytest.raises(UserError, match=f"cut short, {there} of its 6 faces are there"):
        read_mesh(tmp_path / "a.stl")


def test_a_binary_stl_whose_head_reads_as_text_is_binary(tmp_path: Path) -> None:
    (tmp_path / "a.stl").write_bytes(stl(head=b"solid with a facet in its name"))
    [part] = read_mesh(tmp_path / "a.stl")
    assert len(part.faces) == len(FACES)


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("a.obj", [*(f"v {vertex}" for vertex in VERTICES), *TRIANGLES]),
        ("a.off", ["OFF", f"8 {len(FACES)} 0", *VERTICES, *(f"3 {a} {b} {c}" for a, b, c in FACES)]),
    ],
)
def test_every_end_of_a_line_is_one(tmp_path: Path, end: str, name: str, lines: list[str]) -> None:
    (tmp_path / name).write_bytes("".join(line + end for line in lines).encode())
    [part] = read_mesh(tmp_path / name)
    assert len(part.faces) == len(FACES)
    assert sorted(map(tuple, part.vertices.tolist())) == sorted(map(tuple, CORNERS.astype(float).tolist()))


@pytest.mark.parametrize(
    ("colour", "expected"),
    [("255 0 128", (1.0, 0.0, 0.502)), ("1 0 0.5", (1.0, 0.0, 0.5)), ("0.2 0.1 0", (0.2, 0.1, 0.0))],
)
def test_colours_of_an_obj_are_shares_or_bytes(tmp_path: Path, colour: str, expected: tuple[float, ...]) -> None:
    (tmp_path / "a.obj").write_text("\n".join([*(f"v {vertex} {colour}" for vertex in VERTICES), *TRIANGLES]))
    _, rgb = sampled(tmp_path / "a.obj")
    assert rgb is not None
    assert rgb.mean(dim=0).tolist() == pytest.approx(expected, abs=0.005)


def test_an_obj_with_weights_behind_its_vertices_is_read(tmp_path: Path) -> None:
    # A fourth number is a weight, not a colour.
    (tmp_path / "a.obj").write_text("\n".join([*(f"v {vertex} 1.0" for vertex in VERTICES), *TRIANGLES]))
    points, rgb = sampled(tmp_path / "a.obj")
    assert rgb is None and float(points.max()) <= 1.0


def test_colours_of_faces_with_four_corners_are_named_and_no_error(tmp_path: Path) -> None:
    # Of a scanner: the kind of colours that trimesh splits from their faces.
    head = ["ply", "format ascii 1.0", "element vertex 4", *(f"property float {axis}" for axis in "xyz")]
    head += ["element face 1", "property list uchar int vertex_indices"]
    head += [*(f"property uchar {name}" for name in ("red", "green", "blue")), "end_header"]
    rows = ["0 0 0", "1 0 0", "1 1 0", "0 1 0", "4 0 1 2 3 255 0 0"]
    (tmp_path / "a.ply").write_text("\n".join([*head, *rows, ""]))
    with pytest.warns(UserWarning, match="without its 1 colours, which are not one for each triangle"):
        points, rgb = sampled(tmp_path / "a.ply")
    assert rgb is None and float(points[:, :2].mean()) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("stray", ["nan 0 0", "inf 0 0", "1e200 0 0"])
def test_a_vertex_without_a_face_spoils_nothing(tmp_path: Path, stray: str) -> None:
    lines = [*(f"v {vertex}" for vertex in VERTICES), f"v {stray}", *TRIANGLES]
    (tmp_path / "a.obj").write_text("\n".join(lines))
    # Of a binary file all vertices stay; trimesh leaves those of an .obj out.
    head = ["ply", "format ascii 1.0", "element vertex 9", *(f"property double {axis}" for axis in "xyz")]
    head += [f"element face {len(FACES)}", "property list uchar int vertex_indices", "end_header"]
    faces = [f"3 {a} {b} {c}" for a, b, c in FACES]
    (tmp_path / "a.ply").write_text("\n".join([*head, *VERTICES, stray, *faces, ""]))
    for name in ("a.obj", "a.ply"):
        points, _ = sampled(tmp_path / name)
        assert float(points.abs().max()) <= 1.0 and float(points.std(dim=0).max()) > 0.1


def written(path: Path, edit: Callable[[dict[str, Any]], Any]) -> Path:
    header, _ = gltf(binary=False)
    edit(header)
    path.write_text(json.dumps(header))
    return path


def test_a_gltf_without_a_scene_shows_its_nodes(tmp_path: Path) -> None:
    parts = read_mesh(written(tmp_path / "a.gltf", lambda header: (header.pop("scene"), header.pop("scenes"))))
    assert len(parts) == 2


def test_instances_that_are_not_read_are_refused(tmp_path: Path) -> None:
    def instanced(header: dict[str, Any]) -> None:
        header["nodes"][0]["extensions"] = {"EXT_mesh_gpu_instancing": {"attributes": {"TRANSLATION": 0}}}

    with pytest.raises(UserError, match="EXT_mesh_gpu_instancing.*export it without instancing"):
        read_mesh(written(tmp_path / "a.gltf", instanced))
