"""Faults that seeded damage found in the headers of packed splats: one line each."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

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
