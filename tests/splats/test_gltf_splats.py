"""KHR_gaussian_splatting: the file by the specification's own words, gltf-validator, and files with nodes."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from node_tools import node_module, run_node, splat_transform
from splat_clouds import cloud_named, errors, nearest, needles

from sdi_gs.files.origin import Origin
from sdi_gs.runs.loading import load
from sdi_gs.splats.contents import contents_of
from sdi_gs.splats.formats import read_splats, write_splats
from sdi_gs.splats.splat_cloud import in_frame, rotate_cloud

NAME = "KHR_gaussian_splatting"


def parsed(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return a binary glTF's description and its attributes, read by the specification."""
    data = path.read_bytes()
    magic, version, total, size, kind = struct.unpack("<4sIII4s", data[:20])
    assert (magic, version, total, kind) == (b"glTF", 2, len(data), b"JSON")
    assert size % 4 == 0
    tree = json.loads(data[20 : 20 + size])
    length, kind = struct.unpack("<I4s", data[20 + size : 28 + size])
    body = data[28 + size :]
    assert (kind, length) == (b"BIN\0", len(body)) and length == tree["buffers"][0]["byteLength"]
    arrays = {}
    [primitive] = tree["meshes"][0]["primitives"]
    for name, number in primitive["attributes"].items():
        accessor = tree["accessors"][number]
        view = tree["bufferViews"][accessor["bufferView"]]
        dtype = {5126: "<f4", 5121: "u1"}[accessor["componentType"]]
        width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[accessor["type"]]
        values = np.frombuffer(body, dtype, accessor["count"] * width, view["byteOffset"])
        arrays[name] = values.reshape(-1, width)
    return tree, arrays


@pytest.mark.parametrize(("name", "degree"), [("degree 0", 0), ("degree 3", 3)])
def test_a_file_is_what_the_specification_asks_for(name: str, degree: int, tmp_path: Path) -> None:
    cloud = cloud_named(name)
    write_splats(
        tmp_path / "a.glb", cloud, "gltf-splats", origin=Origin(prompt='a "blue" röbot', prior="p", seed=3, step=9)
    )
    tree, arrays = parsed(tmp_path / "a.glb")
    expected = in_frame(cloud, "y-up")
    x, y, z = cloud.means.unbind(dim=1)
    np.testing.assert_allclose(arrays["POSITION"], torch.stack([y, z, x], dim=1))
    np.testing.assert_allclose(arrays[f"{NAME}:ROTATION"], expected.quats.roll(-1, dims=1), atol=1e-6)
    np.testing.assert_allclose(arrays[f"{NAME}:SCALE"], expected.log_scales.exp(), rtol=1e-5)
    np.testing.assert_allclose(arrays[f"{NAME}:OPACITY"][:, 0], expected.opacity_logit.sigmoid(), atol=1e-6)
    np.testing.assert_allclose(arrays[f"{NAME}:SH_DEGREE_0_COEF_0"], expected.sh_dc)
    harmonics = [f"{NAME}:SH_DEGREE_{band}_COEF_{n}" for band in range(1, degree + 1) for n in range(2 * band + 1)]
    assert [key for key in arrays if "SH_DEGREE" in key][1:] == harmonics
    for index, key in enumerate(harmonics):
        np.testing.assert_allclose(arrays[key], expected.sh_rest[:, index], atol=1e-6)
    [primitive] = tree["meshes"][0]["primitives"]
    assert primitive["mode"] == 0
    assert primitive["extensions"] == {NAME: {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}}
    assert tree["extensionsUsed"] == [NAME] and "extensionsRequired" not in tree
    assert tree["accessors"][0]["max"] == arrays["POSITION"].max(axis=0).tolist()
    assert tree["asset"]["extras"]["comments"] == ['prompt a "blue" röbot', "prior p", "seed 3 steps 9"]
    # For programs without the extension: points in linear light.
    rgb = (expected.sh_dc * 0.28209479177387814 + 0.5).clamp(0, 1).numpy()
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    np.testing.assert_allclose(arrays["COLOR_0"][:, :3] / 255.0, linear, atol=0.51 / 255)


def test_needles_stand_up_and_look_along_z(tmp_path: Path) -> None:
    write_splats(tmp_path / "a.glb", needles(), "gltf-splats")
    _, arrays = parsed(tmp_path / "a.glb")
    rgb = arrays[f"{NAME}:SH_DEGREE_0_COEF_0"] * 0.28209479177387814 + 0.5
    # Training's x is red, y green and z blue; the front is z here, the top y.
    for channel, axis in ((0, 2), (1, 0), (2, 1)):
        place = np.zeros(3)
        place[axis] = 0.8
        np.testing.assert_allclose(arrays["POSITION"][rgb[:, channel].argmax()], place, atol=1e-6)


def test_gltf_validator_finds_no_fault_but_the_extension(tmp_path: Path) -> None:
    validator = node_module("gltf-validator")
    write_splats(tmp_path / "a.glb", cloud_named("degree 2"), "gltf-splats")
    script = tmp_path / "validate.js"
    script.write_text(
        f"require({json.dumps(str(validator))}).validateBytes(new Uint8Array(require('fs').readFileSync("
        f"{json.dumps(str(tmp_path / 'a.glb'))}))).then(report => console.log(JSON.stringify(report.issues.messages)))"
    )
    found = {message["code"] for message in json.loads(run_node(script))}
    # It does not know the extension yet, and takes its attributes' colons for an error.
    assert found <= {"UNSUPPORTED_EXTENSION", "MESH_PRIMITIVE_INVALID_ATTRIBUTE"}


def test_a_file_of_splat_transform_is_read(tmp_path: Path) -> None:
    cloud = cloud_named("degree 3")
    write_splats(tmp_path / "a.ply", cloud, "ply")
    splat_transform(tmp_path / "a.ply", tmp_path / "b.glb")
    assert contents_of(tmp_path / "b.glb").kind == "splats"
    # It turns the .ply by half a turn about z, so that our front looks along -z: half a turn about y from ours.
    found = rotate_cloud(in_frame(read_splats(tmp_path / "b.glb"), "y-up"), (0.0, 0.0, 1.0, 0.0))
    expected = in_frame(cloud, "y-up")
    apart = errors(nearest(found, expected), expected)
    assert max(apart[part] for part in ("means", "log_scales", "opacity", "sh_dc", "sh_rest")) < 1e-5, apart
    assert apart["turns"] < 2e-3


def test_nodes_move_turn_and_scale_their_splats(tmp_path: Path) -> None:
    cloud = cloud_named("degree 1")
    write_splats(tmp_path / "a.glb", cloud, "gltf-splats")
    data = (tmp_path / "a.glb").read_bytes()
    size = struct.unpack("<I", data[12:16])[0]
    tree = json.loads(data[20 : 20 + size])
    half = math.sqrt(0.5)
    # Twice as large, a quarter turn about y and 5 along x; the same splats once more, by a matrix, in its own place.
    tree["nodes"] = [
        {"children": [1], "translation": [5, 0, 0]},
        {"mesh": 0, "rotation": [0, half, 0, half], "scale": [2, 2, 2]},
        {"mesh": 0, "matrix": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, -7, 0, 1]},
    ]
    tree["scenes"] = [{"nodes": [0, 2]}]
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    (tmp_path / "b.glb").write_bytes(data[:12] + struct.pack("<I", len(text)) + b"JSON" + text + data[20 + size :])
    found = in_frame(read_splats(tmp_path / "b.glb"), "y-up")
    own = in_frame(cloud, "y-up")
    turned = rotate_cloud(own, (half, 0.0, half, 0.0))
    moved = replace(
        turned, means=2.0 * turned.means + torch.tensor([5.0, 0.0, 0.0]), log_scales=turned.log_scales + math.log(2.0)
    )
    below = replace(own, means=own.means + torch.tensor([0.0, -7.0, 0.0]))
    parts = {name: torch.cat([getattr(moved, name), getattr(below, name)]) for name in vars(own)}
    order = [torch.cdist(found.means, parts["means"]).argmin(dim=1)]
    for name in ("means", "log_scales", "opacity_logit", "sh_dc", "sh_rest"):
        torch.testing.assert_close(getattr(found, name), parts[name][order[0]], atol=1e-4, rtol=1e-4)
    assert load(tmp_path / "b.glb").representation.num_points == 600
