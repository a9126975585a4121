"""Five clouds through every writer, and back through this project's reader and through readers of others.

Bounds are half a step of each format's own quantisation, with a little for float32.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from node_tools import splat_transform, version_of
from plyfile import PlyData
from splat_clouds import CLOUDS, NEEDLES, cloud_named, errors, nearest, needles

from sdi_gs.settings.export import ExportOptions
from sdi_gs.settings.frames import Frame
from sdi_gs.splats.formats import SPLAT_FORMATS, read_splats, write_splats
from sdi_gs.splats.ply_dialects import cloud_of
from sdi_gs.splats.splat_cloud import SplatCloud, in_frame

SUFFIXES = {row.name: row.suffix for row in SPLAT_FORMATS}
LOSSLESS = {"means": 2e-5, "log_scales": 2e-6, "turns": 2e-3, "opacity": 1e-6, "sh_dc": 1e-6, "sh_rest": 2e-6}
BOUNDS: dict[str, dict[str, float]] = {
    "ply": LOSSLESS,
    "inria": LOSSLESS,
    "gltf-splats": LOSSLESS,
    "usda": LOSSLESS,
    # 12 bits behind the point; 1/16 of ln; 511 sqrt 2 steps; bytes of opacity, of colour over 6.67 and of harmonics.
    "spz": {
        "means": 0.51 / 4096,
        "log_scales": 0.51 / 16,
        "turns": 0.005,
        "opacity": 0.51 / 255,
        "sh_dc": 0.51 / 38.25,
        "sh_rest": 0.51 / 128,
    },
    # 16 bits of ln(1 + |v|) up to 70; no number is farther from its book's than half a step of 127 over the range.
    "sog": {
        "means": 0.51 * 71 * 2 * math.log(71) / 65535,
        "log_scales": 0.51 * 16 / 127,
        "turns": 0.013,
        "opacity": 0.51 / 255,
        "sh_dc": 0.51 * 6 / 127,
        "sh_rest": 0.51 * 2 / 127,
    },
    # 10 and 11 bits over a chunk of 256 splats, here nearly the whole cloud.
    "compressed-ply": {
        "means": 0.51 * 120 / 1023,
        "log_scales": 0.51 * 16 / 1023,
        "turns": 0.004,
        "opacity": 0.51 / 255,
        "sh_dc": 0.51 * 6 / 255,
        "sh_rest": 0.51 / 32,
    },
}


def written(tmp_path: Path, cloud: SplatCloud, file_format: str, frame: Frame = "viewer") -> Path:
    path = tmp_path / f"splats{SUFFIXES[file_format]}"
    done = write_splats(path, cloud, file_format, options=ExportOptions(frame=frame))
    assert done.report.written == len(cloud)
    return path


def own_axes(file_format: str, frame: Frame) -> Frame:
    return "y-up" if file_format in ("gltf-splats", "usda") and frame == "viewer" else frame


def require_within(found: SplatCloud, expected: SplatCloud, file_format: str) -> None:
    apart, bounds = errors(found, expected), BOUNDS[file_format]
    assert all(apart[name] <= bounds[name] for name in bounds), {name: (apart[name], bounds[name]) for name in bounds}


@pytest.mark.parametrize("frame", ["viewer", "y-up", "train"])
@pytest.mark.parametrize("file_format", [name for name in BOUNDS if name != "usda"])
def test_what_is_written_is_read_back(file_format: str, frame: Frame, tmp_path: Path) -> None:
    for name in CLOUDS if frame == "viewer" else ("degree 3",):
        (tmp_path / name).mkdir()
        cloud = cloud_named(name)
        found = read_splats(written(tmp_path / name, cloud, file_format, frame), frame=frame)
        # In the file's axes, where each harmonic has its own error.
        found, expected = in_frame(found, own_axes(file_format, frame)), in_frame(cloud, own_axes(file_format, frame))
        require_within(nearest(found, expected), expected, file_format)


def of_ply(path: Path) -> SplatCloud:
    """Return a plain .ply's splats in its own axes, as plyfile reads it."""
    return cloud_of(np.asarray(PlyData.read(path)["vertex"].data), path)


def gsplys(path: Path) -> SplatCloud:
    gsply = pytest.importorskip("gsply")
    found = gsply.read_spz(str(path)) if path.suffix == ".spz" else gsply.plyread(str(path))
    count = len(found.means)
    harmonics = np.zeros((count, 0, 3), np.float32) if found.shN is None else np.asarray(found.shN)
    return SplatCloud(
        means=torch.from_numpy(np.array(found.means)),
        log_scales=torch.from_numpy(np.array(found.scales)),
        quats=torch.from_numpy(np.array(found.quats)),
        opacity_logit=torch.from_numpy(np.array(found.opacities)).reshape(count),
        sh_dc=torch.from_numpy(np.array(found.sh0)).reshape(count, 3),
        sh_rest=torch.from_numpy(harmonics.copy()).reshape(count, -1, 3),
    )


def gaussforges(path: Path, kind: str) -> SplatCloud:
    gaussforge = pytest.importorskip("gaussforge")
    converted = gaussforge.GaussForge().convert(path.read_bytes(), kind, "ply")
    assert "error" not in converted, converted
    target = path.with_name("gaussforge.ply")
    target.write_bytes(converted["data"])
    return of_ply(target)


def playcanvas_csv(path: Path) -> SplatCloud:
    target = path.with_name("splat-transform.csv")
    splat_transform(path, target)
    with target.open() as file:
        names, *rows = csv.reader(file)
    table = np.array([tuple(map(float, row)) for row in rows], dtype=[(name, "f4") for name in names])
    return cloud_of(table, target)


FOREIGN = {
    "spz, gsply": ("spz", gsplys),
    "spz, gaussforge": ("spz", lambda path: gaussforges(path, "spz")),
    "spz, splat-transform": ("spz", playcanvas_csv),
    "sog, gaussforge": ("sog", lambda path: gaussforges(path, "sog")),
    "sog, splat-transform": ("sog", playcanvas_csv),
    "compressed-ply, gsply": ("compressed-ply", gsplys),
    "compressed-ply, gaussforge": ("compressed-ply", lambda path: gaussforges(path, "compressed.ply")),
    "compressed-ply, splat-transform": ("compressed-ply", playcanvas_csv),
}


@pytest.mark.parametrize("reader", FOREIGN)
def test_readers_of_others_find_the_same_splats(reader: str, tmp_path: Path) -> None:
    file_format, read = FOREIGN[reader]
    for name in CLOUDS:
        (tmp_path / name).mkdir()
        cloud = cloud_named(name)
        # Before version 3 splat-transform took an .spz for RUB, as its specification says; other readers copy the axes.
        is_rub = reader == "spz, splat-transform" and version_of("@playcanvas/splat-transform") < (3,)
        found = read(written(tmp_path / name, cloud, file_format, "y-up" if is_rub else "viewer"))
        if name == "extreme" and "splat-transform" in reader:
            # It takes splats of more than e^4 for faults, and drops them.
            cloud = cloud.select(cloud.log_scales.amax(dim=1) < 4.0)
            found = found.select(found.log_scales.amax(dim=1) < 4.0)
        expected = in_frame(cloud, "viewer")
        require_within(nearest(found, expected), expected, file_format)


def usd_stage(path: Path) -> tuple[Any, Any]:
    pytest.importorskip("pxr", reason="needs usd-core")
    from pxr import Usd, UsdGeom

    # usd-core's types do not name what it makes at run time.
    library: Any = Usd
    geometry: Any = UsdGeom
    stage = library.Stage.Open(str(path))
    return stage, geometry.GetStageUpAxis(stage)


def usd_cloud(path: Path) -> SplatCloud:
    stage, up = usd_stage(path)
    prim = stage.GetDefaultPrim()
    assert (str(prim.GetTypeName()), up) == ("ParticleField3DGaussianSplat", "Y")

    def values(name: str) -> torch.Tensor:
        return torch.from_numpy(np.array(prim.GetAttribute(name).Get(), dtype=np.float32))

    means = values("positions")
    harmonics = values("radiance:sphericalHarmonicsCoefficients").reshape(len(means), -1, 3)
    assert harmonics.shape[1] == (prim.GetAttribute("radiance:sphericalHarmonicsDegree").Get() + 1) ** 2
    turns = [[turn.GetReal(), *turn.GetImaginary()] for turn in prim.GetAttribute("orientations").Get()]
    return SplatCloud(
        means=means,
        log_scales=values("scales").log(),
        quats=torch.tensor(turns),
        opacity_logit=torch.logit(values("opacities").double()).float(),
        sh_dc=harmonics[:, 0],
        sh_rest=harmonics[:, 1:],
    )


@pytest.mark.parametrize("name", CLOUDS)
def test_usd_core_finds_the_same_splats(name: str, tmp_path: Path) -> None:
    cloud = cloud_named(name)
    require_within(usd_cloud(written(tmp_path, cloud, "usda")), in_frame(cloud, "y-up"), "usda")


def test_needles_point_where_the_format_says(tmp_path: Path) -> None:
    """Which way is up, right and front in each file, by colour: x of training is red, y green, z blue."""
    along = {"viewer": ((0, 0, -1), (1, 0, 0), (0, -1, 0)), "y-up": ((0, 0, 1), (1, 0, 0), (0, 1, 0))}
    cloud = needles()
    files = {
        "spz": ("viewer", gsplys),
        "compressed-ply": ("viewer", gsplys),
        "sog": ("viewer", lambda path: gaussforges(path, "sog")),
        "ply": ("viewer", of_ply),
        "usda": ("y-up", usd_cloud),
    }
    for file_format, (frame, read) in files.items():
        found = read(written(tmp_path, cloud, file_format))
        red, green, blue = (torch.tensor(axis, dtype=torch.float32) for axis in along[frame])
        places = torch.stack([x * red + y * green + z * blue for x, y, z in NEEDLES])
        ordered = nearest(found, SplatCloud(**{**vars(cloud), "means": 0.8 * places}))
        torch.testing.assert_close(ordered.means, 0.8 * places, atol=0.01, rtol=0)
        rgb = ordered.sh_dc * 0.28209479177387814 + 0.5
        torch.testing.assert_close(rgb, cloud.sh_dc * 0.28209479177387814 + 0.5, atol=0.01, rtol=0)
        # A needle of the length of its place, along it.
        directions = in_frame(ordered, "train")
        assert long_axes(directions).mul(places).sum(dim=1).abs().min() > math.cos(0.02), file_format


def long_axes(cloud: SplatCloud) -> torch.Tensor:
    """Return the direction of each splat's longest axis, [N, 3]."""
    from sdi_gs.splats.splat_cloud import rotation_matrices

    longest = cloud.log_scales.argmax(dim=1)
    return rotation_matrices(cloud.quats)[torch.arange(len(cloud)), :, longest].float()
