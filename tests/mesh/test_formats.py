"""Mesh files as trimesh and the formats' own words read them back."""

from __future__ import annotations

import json
import struct
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from node_tools import node_module, run_node
from plyfile import PlyData
from torch import Tensor

from sdi_gs import __version__
from sdi_gs.contracts import DensityField, cube
from sdi_gs.errors import UserError
from sdi_gs.files.origin import Origin
from sdi_gs.mesh.extraction import Texture, TriangleMesh, mesh_of_field
from sdi_gs.mesh.formats import MESH_FORMATS, MeshFormat, write_mesh
from sdi_gs.representations.mesh_colours import linear_from_srgb
from sdi_gs.settings.export import ExportOptions
from sdi_gs.settings.mesh import MeshConfig

FORMATS = ("glb", "obj", "ply-mesh")
SUFFIXES = {row.name: row.suffix for row in MESH_FORMATS}


def made() -> TriangleMesh:
    """A ball that reaches farther in front (+x) and farther still to the top (+z), in colours of the place."""

    def density_of(points: Tensor) -> Tensor:
        stretch = torch.where(points > 0, torch.tensor([0.7, 0.5, 0.9]), 0.5)
        return 100.0 * torch.sigmoid(30.0 * (1.0 - (points / stretch).norm(dim=-1)))

    field = DensityField(density_of=density_of, albedo_of=lambda points: 0.5 + 0.5 * points, box=cube(1.0))
    mesh, report = mesh_of_field(field, MeshConfig(resolution=40))
    assert report.watertight
    return mesh


def read(path: Path, *, process: bool = False) -> Any:
    return trimesh.load_mesh(path, process=process)


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_file_has_the_mesh_with_y_up_and_its_front_along_z(file_format: str, tmp_path: Path) -> None:
    mesh, path = made(), tmp_path / f"a{SUFFIXES[file_format]}"
    write_mesh(path, mesh, file_format)
    found = read(path)
    np.testing.assert_array_equal(found.faces, mesh.faces)
    np.testing.assert_allclose(found.vertices, mesh.vertices[:, [1, 2, 0]], atol=1e-6)
    np.testing.assert_allclose(stored_normals(path), mesh.normals[:, [1, 2, 0]], atol=1e-6)
    reach = found.bounds[1]
    assert reach[1] > reach[2] > reach[0], "up is y, the front is z"
    assert found.volume > 0.0


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_file_in_the_axes_of_training_is_not_turned(file_format: str, tmp_path: Path) -> None:
    mesh, path = made(), tmp_path / f"a{SUFFIXES[file_format]}"
    write_mesh(path, mesh, file_format, options=ExportOptions(frame="train"))
    np.testing.assert_allclose(read(path).vertices, mesh.vertices, atol=1e-6)


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_file_is_watertight_for_readers_that_merge_vertices(file_format: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{SUFFIXES[file_format]}"
    write_mesh(path, made(), file_format)
    found = read(path, process=True)
    assert found.is_watertight
    assert found.is_winding_consistent


@pytest.mark.parametrize("file_format", ["obj", "ply-mesh"])
def test_colours_of_obj_and_ply_are_those_of_the_renders(file_format: str, tmp_path: Path) -> None:
    mesh, path = made(), tmp_path / f"a{SUFFIXES[file_format]}"
    write_mesh(path, mesh, file_format)
    np.testing.assert_allclose(read(path).visual.vertex_colors[:, :3] / 255.0, mesh.rgb, atol=0.51 / 255)


def gltf(path: Path) -> tuple[dict[str, Any], bytes]:
    """The tree and the buffer of a .glb by the words of the specification (glTF 2.0, section 4)."""
    content = path.read_bytes()
    magic, version, length, tree_length, tree_kind = struct.unpack_from("<4sIII4s", content)
    assert (magic, version, length, tree_kind) == (b"glTF", 2, len(content), b"JSON")
    buffer_length, buffer_kind = struct.unpack_from("<I4s", content, 20 + tree_length)
    assert buffer_kind == b"BIN\0"
    start = 28 + tree_length
    return json.loads(content[20 : 20 + tree_length]), content[start : start + buffer_length]


def stored_normals(path: Path) -> np.ndarray:
    """Normals [V, 3] as they stand in a file; trimesh does not give them out."""
    match path.suffix:
        case ".glb":
            tree, buffer = gltf(path)
            accessor = tree["accessors"][tree["meshes"][0]["primitives"][0]["attributes"]["NORMAL"]]
            start = tree["bufferViews"][accessor["bufferView"]]["byteOffset"]
            return np.frombuffer(buffer, "<f4", 3 * accessor["count"], start).reshape(-1, 3)
        case ".obj":
            lines = path.read_text().splitlines()
            return np.array([line.split()[1:] for line in lines if line.startswith("vn ")], float)
        case _:
            vertices = PlyData.read(path)["vertex"]
            return np.stack([vertices[name] for name in ("nx", "ny", "nz")], axis=-1)


def test_colours_of_glb_are_linear_and_fine_enough_for_dark_ones(tmp_path: Path) -> None:
    mesh, path = made(), tmp_path / "a.glb"
    write_mesh(path, mesh, "glb")
    tree, buffer = gltf(path)
    [primitive] = tree["meshes"][0]["primitives"]
    accessor = tree["accessors"][primitive["attributes"]["COLOR_0"]]
    assert (accessor["type"], accessor["componentType"], accessor["normalized"]) == ("VEC4", 5123, True)
    view = tree["bufferViews"][accessor["bufferView"]]
    stored = np.frombuffer(buffer, "<u2", 4 * accessor["count"], view["byteOffset"]).reshape(-1, 4) / 65535.0
    assert view["byteLength"] == 8 * len(mesh.vertices)
    assert (stored[:, 3] == 1.0).all()
    # The way back, IEC 61966-2-1: what a viewer shows.
    shown = np.where(stored <= 0.0031308, 12.92 * stored, 1.055 * stored ** (1 / 2.4) - 0.055)[:, :3]
    np.testing.assert_allclose(shown, mesh.rgb, atol=1e-3)
    material = tree["materials"][primitive["material"]]["pbrMetallicRoughness"]
    assert material["metallicFactor"] == 0.0


def test_a_glb_names_its_origin_its_unit_and_what_its_views_hold(tmp_path: Path) -> None:
    origin = Origin(prompt="a blue robot", prior="toybox-ideal", seed=3, step=400)
    write_mesh(tmp_path / "a.glb", made(), "glb", origin=origin, options=ExportOptions(mesh=MeshConfig(unlit=True)))
    tree, buffer = gltf(tmp_path / "a.glb")
    extras = {"prompt": "a blue robot", "prior": "toybox-ideal", "seed": 3, "steps": 400, "version": __version__}
    assert tree["asset"]["extras"] == {**extras, "units": "metres", "metres_per_scene_unit": 1.0}
    assert tree["nodes"][0]["name"] == tree["meshes"][0]["name"] == "a blue robot"
    # Indices, and attributes of vertices.
    assert [view["target"] for view in tree["bufferViews"]] == [34963, 34962, 34962, 34962]
    assert all(view["byteOffset"] % 4 == 0 for view in tree["bufferViews"])
    assert tree["buffers"] == [{"byteLength": len(buffer)}]
    assert tree["extensionsUsed"] == ["KHR_materials_unlit"]
    assert tree["materials"][0]["extensions"] == {"KHR_materials_unlit": {}}
    write_mesh(tmp_path / "b.glb", made(), "glb")
    lit, _ = gltf(tmp_path / "b.glb")
    assert "extensionsUsed" not in lit and "extensions" not in lit["materials"][0]
    assert lit["asset"]["extras"] == {"version": __version__, "units": "metres", "metres_per_scene_unit": 1.0}


@pytest.mark.parametrize("textured", [False, True])
def test_the_validator_of_khronos_has_nothing_to_say(tmp_path: Path, textured: bool) -> None:
    validator, mesh = node_module("gltf-validator"), made()
    if textured:
        picture = Texture(uv=mesh.rgb[:, :2], picture=np.full((8, 8, 3), 200, np.uint8))
        mesh = replace(mesh, texture=picture)
    write_mesh(tmp_path / "a.glb", mesh, "glb", options=ExportOptions(mesh=MeshConfig(unlit=True)))
    program = (
        "require(process.argv[1]).validateBytes(new Uint8Array(require('fs').readFileSync(process.argv[2])))"
        ".then(report => console.log(JSON.stringify(report.issues)))"
    )
    issues = json.loads(run_node("-e", program, validator, tmp_path / "a.glb"))
    counts = [issues[name] for name in ("numErrors", "numWarnings", "numInfos", "numHints")]
    assert counts == [0, 0, 0, 0], issues["messages"]


def test_linear_light_of_known_greys() -> None:
    np.testing.assert_allclose(
        linear_from_srgb(np.array([0.0, 0.04045, 0.5, 1.0])), [0.0, 0.0031308, 0.214041, 1.0], atol=1e-6
    )


@pytest.mark.parametrize("file_format", FORMATS)
def test_files_repeat_to_the_byte_and_nothing_is_overwritten(file_format: str, tmp_path: Path) -> None:
    mesh, first, second = made(), tmp_path / "first", tmp_path / "second"
    write_mesh(first, mesh, file_format)
    write_mesh(second, mesh, file_format)
    assert first.read_bytes() == second.read_bytes()
    with pytest.raises(UserError, match="never overwritten"):
        write_mesh(first, mesh, file_format)


def test_a_missing_trimesh_is_told_with_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = made()
    monkeypatch.setitem(sys.modules, "trimesh", None)
    with pytest.raises(UserError, match=r'trimesh: pip install "sdi-gs\[mesh\]"'):
        write_mesh(tmp_path / "a.obj", mesh, "obj")
    assert list(tmp_path.iterdir()) == []
    # Written without it.
    write_mesh(tmp_path / "a.glb", mesh, "glb")


def test_every_row_has_a_writer_a_name_of_its_own_and_a_suffix() -> None:
    assert tuple(row.name for row in MESH_FORMATS) == FORMATS
    for row in MESH_FORMATS:
        assert callable(import_module(row.module).WRITER)
        assert row.suffix.startswith(".")
        assert row.summary


STL = """
from sdi_gs.files import write_atomically
from sdi_gs.mesh.surface import mesh_library
from sdi_gs.mesh.trimesh_surface import trimesh_surface

def WRITER(path, mesh, *, options, origin, overwrite):
    surface = trimesh_surface(mesh, coloured=False)
    write_atomically(path, mesh_library("trimesh").exchange.stl.export_stl(surface), overwrite=overwrite)
"""


def test_a_new_format_is_one_module_and_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stl_of_a_test.py").write_text(STL)
    monkeypatch.syspath_prepend(tmp_path)
    stl = MeshFormat(name="stl", suffix=".stl", summary="triangles alone", module="stl_of_a_test")
    monkeypatch.setattr("sdi_gs.mesh.formats.MESH_FORMATS", (*MESH_FORMATS, stl))
    mesh = made()
    write_mesh(tmp_path / "a.stl", mesh, "stl")
    corners = mesh.vertices[mesh.faces][:, :, [1, 2, 0]]
    np.testing.assert_allclose(read(tmp_path / "a.stl").triangles, corners, atol=1e-6)


def test_an_unknown_format_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown format of meshes stl: choose one of glb, obj, ply-mesh"):
        write_mesh(tmp_path / "a.stl", made(), "stl")
