"""Splat files of other programs' dialects, against formulas in numpy."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from sdi_gs.errors import UserError
from sdi_gs.splats.contents import contents_of
from sdi_gs.splats.ply import read_splat_ply
from sdi_gs.splats.ply_dialects import FLAT_LOG_SCALE

COUNT = 30
C0 = 0.28209479177387814
SCALES, QUATS, DC = (
    tuple(f"{name}_{i}" for i in range(size)) for name, size in (("scale", 3), ("rot", 4), ("f_dc", 3))
)


def table_of(names: list[str], **types: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    table = np.zeros(COUNT, dtype=[(name, types.get(name, "f4")) for name in names])
    for name in names:
        table[name] = rng.normal(-4.0 if name.startswith("scale") else 0.0, 1.0, COUNT)
    return table


def write(path: Path, table: np.ndarray, *, text: bool = False) -> Path:
    PlyData([PlyElement.describe(table, "vertex")], text=text).write(path)
    return path


def test_flat_splats_without_a_third_scale_are_read(tmp_path: Path) -> None:
    table = table_of(["x", "y", "z", *DC, "opacity", *SCALES[:2], *QUATS])
    path = write(tmp_path / "2dgs.ply", table)
    assert contents_of(path).kind == "splats"
    with pytest.warns(UserWarning, match=r"it has no scale_2, so its splats are flat \(2D Gaussian Splatting\)"):
        cloud = read_splat_ply(path, frame="train")
    np.testing.assert_array_equal(cloud.log_scales[:, 1], table["scale_1"])
    torch.testing.assert_close(cloud.log_scales[:, 2], torch.full((COUNT,), FLAT_LOG_SCALE))


@pytest.mark.parametrize("degree", [4, 5])
def test_harmonics_above_degree_three_are_left_out(tmp_path: Path, degree: int) -> None:
    per_channel = (degree + 1) ** 2 - 1
    rest = [f"f_rest_{i}" for i in range(3 * per_channel)]
    table = table_of(["x", "y", "z", *DC, *rest, "opacity", *SCALES, *QUATS])
    with pytest.warns(UserWarning, match=f"its harmonics of degree {degree} are used up to degree 3"):
        cloud = read_splat_ply(write(tmp_path / "a.ply", table), frame="train")
    assert cloud.sh_rest.shape == (COUNT, 15, 3)
    for channel, index in ((0, 0), (1, 0), (1, 14), (2, 7)):
        np.testing.assert_array_equal(
            cloud.sh_rest[:, index, channel], table[f"f_rest_{channel * per_channel + index}"]
        )


@pytest.mark.parametrize("count", [10, 30, 48, 70])
def test_an_odd_number_of_harmonics_is_refused(tmp_path: Path, count: int) -> None:
    rest = [f"f_rest_{i}" for i in range(count)]
    path = write(tmp_path / "a.ply", table_of(["x", "y", "z", *DC, *rest, "opacity", *SCALES, *QUATS]))
    with pytest.raises(UserError, match=f"{count} f_rest_\\* properties, splats have 0, 9, 24 or 45"):
        read_splat_ply(path)


@pytest.mark.parametrize(("kind", "full"), [("u1", 255.0), ("u2", 65535.0), ("f4", 1.0), ("i4", 255.0)])
@pytest.mark.parametrize("text", [False, True])
def test_colours_stand_for_harmonics(tmp_path: Path, kind: str, full: float, text: bool) -> None:
    rgb = ("red", "green", "blue")
    table = table_of(["x", "y", "z", *rgb, "opacity", *SCALES, *QUATS], **dict.fromkeys(rgb, kind))
    shares = np.random.default_rng(1).random((3, COUNT))
    for name, share in zip(rgb, shares, strict=True):
        table[name] = share * full
    path = write(tmp_path / "a.ply", table, text=text)
    assert contents_of(path).kind == "splats"
    cloud = read_splat_ply(path, frame="train")
    np.testing.assert_allclose(0.5 + C0 * cloud.sh_dc.numpy().T, shares, atol=1.1 / full if full > 1 else 1e-6)


def test_harmonics_go_before_colours(tmp_path: Path) -> None:
    table = table_of(["x", "y", "z", *DC, "red", "green", "blue", "opacity", *SCALES, *QUATS])
    cloud = read_splat_ply(write(tmp_path / "a.ply", table), frame="train")
    np.testing.assert_array_equal(cloud.sh_dc[:, 2], table["f_dc_2"])


def test_mip_splattings_filter_is_baked_in_as_its_own_export_does(tmp_path: Path) -> None:
    """Splat by splat, as get_scaling_with_3D_filter and get_opacity_with_3D_filter of its gaussian_model.py do."""
    table = table_of(["x", "y", "z", *DC, "opacity", *SCALES, *QUATS, "filter_3D"])
    table["filter_3D"] = np.random.default_rng(1).uniform(0.0, 0.05, COUNT)
    table["filter_3D"][0] = 0.0
    table["opacity"][1] = np.inf
    with pytest.warns(UserWarning, match="filter_3D .* is baked into its scales and opacities"):
        cloud = read_splat_ply(write(tmp_path / "a.ply", table), frame="train")
    for index in range(COUNT):
        width = float(table["filter_3D"][index])
        scales = [math.exp(float(table[name][index])) for name in SCALES]
        wider = [math.sqrt(scale**2 + width**2) for scale in scales]
        logit = float(table["opacity"][index])
        opacity = (1.0 if logit == math.inf else 1.0 / (1.0 + math.exp(-logit))) * math.prod(scales) / math.prod(wider)
        assert cloud.log_scales[index].exp().tolist() == pytest.approx(wider, rel=1e-5)
        assert cloud.opacity_logit[index].sigmoid().item() == pytest.approx(opacity, rel=1e-4)
    np.testing.assert_allclose(cloud.log_scales[0], [table[name][0] for name in SCALES], rtol=1e-6)


PLACE = np.array([500_000.0, 4_000_000.0, 100.0])


def surveyed() -> np.ndarray:
    """Places [COUNT, 3] of a survey in metres: the heights differ by millimetres."""
    places = np.random.default_rng(2).normal(0.0, 1.0, (COUNT, 3))
    places[:, 1] = np.linspace(0.0, 0.5, COUNT)
    return places + PLACE


@pytest.mark.parametrize("text", [False, True])
def test_doubles_far_from_the_origin_keep_their_shape(tmp_path: Path, text: bool) -> None:
    # An ASCII file has all its digits, whatever type it declares.
    table = table_of(["x", "y", "z", *DC, "opacity", *SCALES, *QUATS], **dict.fromkeys("xyz", "f8"))
    for axis in range(3):
        table["xyz"[axis]] = surveyed()[:, axis]
    path = write(tmp_path / "a.ply", table, text=text)
    if text:
        data = path.read_bytes().replace(b"property double", b"property float")
        path.write_bytes(data)
    with pytest.warns(UserWarning, match=r"lies around \(50\d{4}(\.\d)?, 40\d{5}(\.\d)?, \d+(\.\d)?\), too far"):
        cloud = read_splat_ply(path, frame="train")
    assert len(np.unique(cloud.means[:, 1])) == COUNT
    assert cloud.means.abs().max() < 10.0
    np.testing.assert_allclose(
        cloud.means.double() - cloud.means[:1].double(), surveyed() - surveyed()[:1], rtol=0.0, atol=1e-6
    )


def test_a_stray_does_not_hide_that_the_others_are_far_away(tmp_path: Path) -> None:
    table = table_of(["x", "y", "z", *DC, "opacity", *SCALES, *QUATS], **dict.fromkeys("xyz", "f8"))
    for axis in range(3):
        table["xyz"[axis]] = surveyed()[:, axis]
        table["xyz"[axis]][0] = 0.0
    with pytest.warns(UserWarning, match="too far from the origin"):
        cloud = read_splat_ply(write(tmp_path / "a.ply", table), frame="train")
    assert len(np.unique(cloud.means[1:, 1])) == COUNT - 1


def test_doubles_near_the_origin_stay_where_they_are(tmp_path: Path) -> None:
    table = table_of(["x", "y", "z", *DC, "opacity", *SCALES, *QUATS], **dict.fromkeys("xyz", "f8"))
    table["x"] += 20.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cloud = read_splat_ply(write(tmp_path / "a.ply", table), frame="train")
    np.testing.assert_array_equal(cloud.means[:, 0], table["x"].astype(np.float32))
