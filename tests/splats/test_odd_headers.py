"""Faults that seeded damage found in the headers of packed splats: one line each."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzzing.mesh_files import packed
from splat_clouds import cloud_named

from sdi_gs.errors import UserError
from sdi_gs.splats.formats import read_splats, write_splats


@pytest.mark.parametrize(
    ("line", "other"),
    [
        (b"property float max_x\n", b"property float max_x\nproperty float max_x\n"),
        (b"property uchar f_rest_0\n", b"property uchar f_rest_0\nproperty uchar f_rest_0\n"),
    ],
)
def test_a_compressed_ply_with_a_property_twice_is_refused(tmp_path: Path, line: bytes, other: bytes) -> None:
    path = tmp_path / "a.compressed.ply"
    write_splats(path, cloud_named("degree 1", 40), "compressed-ply")
    data = path.read_bytes()
    assert line in data
    path.write_bytes(data.replace(line, other))
    with pytest.raises(UserError, match="are not those of PlayCanvas' compressed .ply"):
        read_splats(path)


@pytest.mark.parametrize("odd", [10**39, "KHR_gaussian_splatting", ["KHR_gaussian_splatting"], True, 0.5])
def test_a_gltf_whose_extensions_are_no_table_has_no_splats(tmp_path: Path, odd: Any) -> None:
    path = tmp_path / "a.glb"
    write_splats(path, cloud_named("degree 1", 40), "gltf-splats")
    data = path.read_bytes()
    length = struct.unpack_from("<I", data, 12)[0]
    tree = json.loads(data[20 : 20 + length])
    tree["meshes"][0]["primitives"][0]["extensions"] = odd
    path.write_bytes(packed(json.dumps(tree).encode(), data[28 + length :]))
    with pytest.raises(UserError, match="none of its nodes has splats"):
        read_splats(path, "gltf-splats")


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("column", ["x", "opacity", "scale_0"])
def test_nan_of_any_bits_is_nan_without_a_warning_of_numpy(tmp_path: Path, column: str, wide: bool) -> None:
    # A signalling NaN, which a cast of numpy warns of.
    names = [
        *"xyz",
        "f_dc_0",
        "f_dc_1",
        "f_dc_2",
        "opacity",
        "scale_0",
        "scale_1",
        "scale_2",
        *(f"rot_{i}" for i in range(4)),
    ]
    types = [(name, "<f8" if wide or name == "y" else "<f4") for name in names]
    table = np.zeros(8, dtype=types)
    table["rot_0"], table["scale_0"], table["x"] = 1.0, -4.0, np.arange(8)
    bits = (0x7FF4000000000000, "<u8") if wide else (0x7FA00000, "<u4")
    table[column][3:4].view(bits[1])[:] = bits[0]
    head = ["ply", "format binary_little_endian 1.0", "element vertex 8"]
    head += [f"property {'double' if kind == '<f8' else 'float'} {name}" for name, kind in types]
    path = tmp_path / "a.ply"
    path.write_bytes("\n".join([*head, "end_header", ""]).encode() + table.tobytes())
    with pytest.warns(UserWarning, match="1 of its 8 splats are left out"):
        assert len(read_splats(path)) == 7
