"""Colours of mesh files, against the formats' own definitions, and what is said of files that are read in part."""

from __future__ import annotations

import base64
import io
import json
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sdi_gs.errors import UserError
from sdi_gs.representations import mesh_files
from sdi_gs.representations.mesh_colours import linear_from_srgb, srgb_from_linear
from sdi_gs.representations.mesh_files import sample_mesh
from sdi_gs.splats.screening import MAX_DISTANCE

LINEAR_HALF = 0.735356983052449
"""The displayed value of linear 0.5 (IEC 61966-2-1)."""
SQUARE = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)
TRIANGLES = np.array([[0, 1, 2], [0, 2, 3]], np.uint16)
UV = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
"""glTF's: (0, 0) is the upper left corner of the picture."""
COMPONENTS = {"f4": 5126, "u2": 5123, "u1": 5121}


def colours_of(path: Path, count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Return points on the surface and their colours."""
    points, rgb = sample_mesh(path, count, generator=torch.Generator().manual_seed(0))
    assert rgb is not None
    return points.numpy(), rgb.numpy()


def four_colours() -> bytes:
    """A picture of 2 x 2 texels: red, green; blue, white."""
    texels = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)
    file = io.BytesIO()
    Image.fromarray(texels).save(file, "png")
    return file.getvalue()


def write_gltf(
    path: Path,
    *,
    attributes: dict[str, np.ndarray] | None = None,
    material: dict[str, Any] | None = None,
    picture: bytes | None = None,
    **more: Any,
) -> Path:
    """Write a square of side 1 as .gltf or .glb by hand."""
    arrays = {"POSITION": SQUARE, "indices": TRIANGLES.reshape(-1)} | (attributes or {})
    blob, views, accessors = b"", [], []
    for array in arrays.values():
        data = np.ascontiguousarray(array)
        kind = "SCALAR" if data.ndim == 1 else f"VEC{data.shape[1]}"
        views.append({"buffer": 0, "byteOffset": len(blob), "byteLength": data.nbytes})
        described = {"bufferView": len(accessors), "componentType": COMPONENTS[data.dtype.str[1:]], "type": kind}
        accessors.append(described | {"count": len(data)} | ({"normalized": True} if data.dtype.kind == "u" else {}))
        blob += data.tobytes() + bytes(-data.nbytes % 4)
    names = [name for name in arrays if name != "indices"]
    primitive: dict[str, Any] = {"attributes": {name: list(arrays).index(name) for name in names}}
    primitive["indices"] = list(arrays).index("indices")
    header: dict[str, Any] = {"asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}]}
    header |= {"nodes": [{"mesh": 0}], "meshes": [{"primitives": [primitive]}]}
    if material is not None:
        primitive["material"] = 0
        header["materials"] = [material]
    if picture is not None:
        uri = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
        header |= {"images": [{"uri": uri}], "textures": [{"source": 0}]}
    header |= {"bufferViews": views, "accessors": accessors} | more
    if path.suffix == ".gltf":
        uri = f"data:application/octet-stream;base64,{base64.b64encode(blob).decode()}"
        path.write_text(json.dumps(header | {"buffers": [{"byteLength": len(blob), "uri": uri}]}))
    else:
        text = json.dumps(header | {"buffers": [{"byteLength": len(blob)}]}).encode()
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(blob), 0x004E4942) + blob
        path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)
    return path


def base(**keys: Any) -> dict[str, Any]:
    return {"pbrMetallicRoughness": keys}


def test_the_two_spaces_are_each_others_inverse_and_agree_with_the_standard() -> None:
    values = np.linspace(0.0, 1.0, 101)
    np.testing.assert_allclose(linear_from_srgb(srgb_from_linear(values)), values, atol=1e-6)
    assert srgb_from_linear(np.array(0.5)) == pytest.approx(LINEAR_HALF, abs=1e-6)


@pytest.mark.parametrize("suffix", ["glb", "gltf"])
def test_a_materials_colour_needs_no_texture_coordinates(tmp_path: Path, suffix: str) -> None:
    path = write_gltf(tmp_path / f"a.{suffix}", material=base(baseColorFactor=[0.5, 0.0, 1.0, 1.0]))
    _, rgb = colours_of(path)
    np.testing.assert_allclose(rgb, np.tile([LINEAR_HALF, 0.0, 1.0], (400, 1)), atol=1e-6)


def test_the_issues_file_keeps_its_colour(tmp_path: Path) -> None:
    import trimesh
    from trimesh.visual.material import PBRMaterial
    from trimesh.visual.texture import TextureVisuals

    ball, box = trimesh.creation.icosphere(), trimesh.creation.box(bounds=[[3, 0, 0], [4, 1, 1]])
    ball.visual = TextureVisuals(material=PBRMaterial(baseColorFactor=[255, 0, 0, 255]))
    box.visual = TextureVisuals(material=PBRMaterial(baseColorFactor=[0, 0, 255, 255]))
    trimesh.Scene([ball, box]).export(tmp_path / "two.glb")
    points, rgb = colours_of(tmp_path / "two.glb")
    of_box = points[:, 0] > 2.0
    assert 0 < of_box.sum() < 400
    assert (rgb[of_box] == [0.0, 0.0, 1.0]).all() and (rgb[~of_box] == [1.0, 0.0, 0.0]).all()


@pytest.mark.parametrize("kind", ["f4", "u2", "u1"])
@pytest.mark.parametrize("with_material", [True, False])
def test_gltfs_vertex_colours_are_linear_in_every_type(tmp_path: Path, kind: str, with_material: bool) -> None:
    full = 1.0 if kind == "f4" else float(np.iinfo(kind).max)
    colours = (np.tile([0.5, 0.0, 1.0, 1.0], (4, 1)) * full).astype(kind)
    material = base(baseColorFactor=[0.5, 1.0, 0.0, 1.0]) if with_material else None
    path = write_gltf(tmp_path / "a.glb", attributes={"COLOR_0": colours}, material=material)
    _, rgb = colours_of(path, 20)
    expected = [0.25, 0.0, 0.0] if with_material else [0.5, 0.0, 1.0]
    np.testing.assert_allclose(rgb, np.tile(srgb_from_linear(np.array(expected)), (20, 1)), atol=3e-3)


def test_dark_vertex_colours_are_not_rounded_to_bytes_of_light(tmp_path: Path) -> None:
    colours = np.tile(np.array([0.002, 0.001, 0.0005], np.float32), (4, 1))
    _, rgb = colours_of(write_gltf(tmp_path / "a.glb", attributes={"COLOR_0": colours}), 20)
    np.testing.assert_allclose(rgb, np.tile(12.92 * colours[:1], (20, 1)), atol=1e-5)


def test_a_texture_is_read_where_the_point_lies_and_times_its_factor(tmp_path: Path) -> None:
    material = base(baseColorTexture={"index": 0}, baseColorFactor=[0.5, 1.0, 1.0, 1.0])
    path = write_gltf(tmp_path / "a.glb", attributes={"TEXCOORD_0": UV}, material=material, picture=four_colours())
    points, rgb = colours_of(path)
    right, low = points[:, 0] > 0.5, points[:, 1] > 0.5  # uv is xy, counted from the picture's upper left.
    red = LINEAR_HALF
    for chosen, colour in [
        (~right & ~low, [red, 0, 0]),
        (right & ~low, [0, 1, 0]),
        (~right & low, [0, 0, 1]),
        (right & low, [red, 1, 1]),
    ]:
        assert chosen.sum() > 50
        np.testing.assert_allclose(rgb[chosen], np.tile(colour, (chosen.sum(), 1)), atol=1e-6)


def test_another_set_of_coordinates_and_a_moved_texture_are_followed(tmp_path: Path) -> None:
    moved = {"KHR_texture_transform": {"offset": [0.0, 0.5], "scale": [0.5, 0.5]}}
    material = base(baseColorTexture={"index": 0, "texCoord": 1, "extensions": moved})
    attributes = {"TEXCOORD_0": np.full((4, 2), 0.9, np.float32), "TEXCOORD_1": UV}
    path = write_gltf(tmp_path / "a.glb", attributes=attributes, material=material, picture=four_colours())
    _, rgb = colours_of(path, 50)
    # u stays below 0.5 and v above: the blue texel.
    assert (rgb == [0.0, 0.0, 1.0]).all()


def test_a_part_without_colours_stays_grey_beside_one_that_has_some(tmp_path: Path) -> None:
    import trimesh

    plain: Any = trimesh.creation.box()
    red: Any = trimesh.creation.box(bounds=[[3, 0, 0], [4, 1, 1]])
    red.visual.face_colors = [255, 0, 0, 255]
    trimesh.Scene([plain, red]).export(tmp_path / "two.glb")
    points, rgb = colours_of(tmp_path / "two.glb")
    assert (rgb[points[:, 0] > 2.0] == [1.0, 0.0, 0.0]).all() and (rgb[points[:, 0] < 2.0] == 0.5).all()


OBJ = "mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nusemtl skin\nf 1/1 2/2 3/3\n"


def test_colours_of_an_obj_are_displayed_ones(tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text(OBJ)
    (tmp_path / "a.mtl").write_text("newmtl skin\nKd 0.5 0.25 0.0\n")
    _, rgb = colours_of(tmp_path / "a.obj", 20)
    np.testing.assert_allclose(rgb, np.tile([0.5, 0.25, 0.0], (20, 1)), atol=1e-6)
    (tmp_path / "a.obj").write_text(
        "v 0 0 0 0.5 0.25 0\nv 1 0 0 0.5 0.25 0\nv 0 1 0 0.5 0.25 0\nvt 0 0\nf 1/1 2/1 3/1\n"
    )
    _, rgb = colours_of(tmp_path / "a.obj", 20)
    np.testing.assert_allclose(rgb, np.tile([0.5, 0.25, 0.0], (20, 1)), atol=3e-3)


def test_an_objs_texture_is_counted_from_its_lower_edge(tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text(OBJ)
    (tmp_path / "a.mtl").write_text("newmtl skin\nKd 0.8 0.8 0.8\nmap_Kd a.png\n")
    (tmp_path / "a.png").write_bytes(four_colours())
    points, rgb = colours_of(tmp_path / "a.obj")
    # The lower left texel is blue, the lower right one white, the upper left one red.
    assert (rgb[(points[:, :2] < 0.5).all(axis=1)] == [0.0, 0.0, 1.0]).all()
    assert (rgb[points[:, 0] > 0.5] == 1.0).all()
    assert (rgb[points[:, 1] > 0.5] == [1.0, 0.0, 0.0]).all()


def no_material(folder: Path) -> Path:
    (folder / "a.obj").write_text(OBJ)
    return folder / "a.obj"


def no_texture(folder: Path) -> Path:
    (folder / "a.mtl").write_text("newmtl skin\nKd 0.5 0.5 0.5\nmap_Kd none.png\n")
    return no_material(folder)


def cut_texture(folder: Path) -> Path:
    material = base(baseColorTexture={"index": 0}, baseColorFactor=[1.0, 0.0, 0.0, 1.0])
    uv = {"TEXCOORD_0": UV}
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "png")
    return write_gltf(folder / "a.glb", attributes=uv, material=material, picture=file.getvalue()[:5000])


def no_picture(folder: Path) -> Path:
    material = base(baseColorTexture={"index": 0})
    return write_gltf(folder / "a.glb", attributes={"TEXCOORD_0": UV}, material=material, picture=b"no picture")


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (no_material, "unable to load materials from: a.mtl"),
        (no_texture, "failed to load image"),
        (cut_texture, "without a texture"),
        (no_picture, "failed to load image"),
    ],
)
def test_what_is_left_out_is_said_once(tmp_path: Path, made: Callable[[Path], Path], says: str) -> None:
    path = made(tmp_path)
    with pytest.warns(UserWarning, match="is read without") as said:
        points, _ = sample_mesh(path, 20, generator=torch.Generator().manual_seed(0))
    [warning] = said
    assert len(points) == 20
    assert says in str(warning.message) and str(path) in str(warning.message)


def test_a_whole_file_is_read_in_silence(tmp_path: Path) -> None:
    path = write_gltf(tmp_path / "a.glb", material=base(baseColorFactor=[1.0, 1.0, 1.0, 1.0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        colours_of(path, 5)


def draco(path: Path) -> Path:
    """A file as Draco's encoders write it: accessors without data."""
    extension = {"KHR_draco_mesh_compression": {"bufferView": 0, "attributes": {"POSITION": 0}}}
    accessors = [
        {"componentType": 5126, "type": "VEC3", "count": 4},
        {"componentType": 5123, "type": "SCALAR", "count": 6},
    ]
    primitive = {"attributes": {"POSITION": 0}, "indices": 1, "extensions": extension}
    more = {"accessors": accessors, "meshes": [{"primitives": [primitive]}]}
    return write_gltf(path, **more, extensionsRequired=["KHR_draco_mesh_compression"])


def meshopt(path: Path) -> Path:
    return write_gltf(path, extensionsRequired=["EXT_meshopt_compression"])


def quantized(path: Path) -> Path:
    return write_gltf(path, attributes={"POSITION": (SQUARE * 65535).astype(np.uint16)})


def beyond_its_vertices(path: Path) -> Path:
    return write_gltf(path, attributes={"indices": np.array([0, 1, 9], np.uint16)})


def cut_header(path: Path) -> Path:
    path.write_bytes(write_gltf(path).read_bytes()[:100])
    return path


def not_finite(path: Path) -> Path:
    return write_gltf(path, attributes={"POSITION": np.where(SQUARE > 0.5, np.inf, SQUARE).astype(np.float32)})


def flat(path: Path) -> Path:
    return write_gltf(path, attributes={"POSITION": SQUARE * np.array([1, 0, 0], np.float32)})


def texture_of_numbers(path: Path) -> Path:
    texture = {"index": 0, "extensions": {"KHR_texture_transform": {"offset": [None, 0.0]}}}
    material = base(baseColorTexture=texture)
    return write_gltf(path, attributes={"TEXCOORD_0": UV}, material=material, picture=four_colours())


def test_a_texture_that_is_none_colours_nothing(tmp_path: Path) -> None:
    material = base(baseColorTexture=[], baseColorFactor=[1.0, 0.0, 0.0, 1.0])
    path = write_gltf(tmp_path / "a.glb", attributes={"TEXCOORD_0": UV}, material=material)
    _, rgb = colours_of(path, 20)
    assert (rgb == [1.0, 0.0, 0.0]).all()


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (texture_of_numbers, "header is damaged"),
        (draco, "compressed (KHR_draco_mesh_compression); export it without compression"),
        (meshopt, "compressed (EXT_meshopt_compression)"),
        (quantized, "its POSITION are quantized"),
        (beyond_its_vertices, "vertices that it does not have"),
        (cut_header, "header is damaged"),
        (not_finite, "are NaN or infinite"),
        (flat, "have no area"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_for_its_own_reason(
    tmp_path: Path, made: Callable[[Path], Path], says: str
) -> None:
    path = made(tmp_path / "a.glb")
    with pytest.raises(UserError) as refused:
        sample_mesh(path, 20, generator=torch.Generator().manual_seed(0))
    assert says in str(refused.value) and str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_instances_count_as_faces_and_too_many_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"mesh": 0, "translation": [2.0 * index, 0, 0]} for index in range(3)]
    path = write_gltf(tmp_path / "a.glb", nodes=nodes, scenes=[{"nodes": [0, 1, 2]}])
    points, _ = sample_mesh(path, 300, generator=torch.Generator().manual_seed(0))
    assert {int(x) // 2 for x in points[:, 0].tolist()} == {0, 1, 2}
    monkeypatch.setattr(mesh_files, "MAX_FACES", 5)
    with pytest.raises(UserError, match="6 triangles are more than 5; simplify it first"):
        sample_mesh(path, 300, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("factor", [1e-30, 1e9, 1e11, 1e150])
def test_no_size_is_too_large_or_small_for_areas(tmp_path: Path, factor: float) -> None:
    lines = [f"v {x * factor:.8e} {y * factor:.8e} 0" for x, y, _ in SQUARE.tolist()]
    (tmp_path / "a.obj").write_text("\n".join([*lines, "f 1 2 3", "f 1 3 4", ""]))
    if factor > MAX_DISTANCE:
        with pytest.raises(UserError, match=r"beyond 1e\+10"):
            sample_mesh(tmp_path / "a.obj", 100, generator=torch.Generator().manual_seed(0))
        return
    points, _ = sample_mesh(tmp_path / "a.obj", 1000, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(points[:, :2].double().mean(dim=0) / factor, [0.5, 0.5], atol=0.05)
