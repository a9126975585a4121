"""INRIA's layout: the folder that is written, its cameras against this project's own, and the last iteration read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from splat_clouds import cloud_named

from sdi_gs.errors import UserError
from sdi_gs.files.origin import Origin
from sdi_gs.pictures.views import ring_cameras
from sdi_gs.runs.loading import load
from sdi_gs.settings.cameras import CameraConfig
from sdi_gs.settings.export import ExportOptions
from sdi_gs.splats.formats import read_splats, write_splats

VIEWER_AXES = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, -1.0], [-1.0, 0.0, 0.0]])


def test_a_folder_has_what_inrias_programs_look_for(tmp_path: Path) -> None:
    cloud = cloud_named("degree 2")
    write_splats(tmp_path / "robot", cloud, "inria", origin=Origin(prompt="a robot", seed=1, step=700))
    assert sorted(str(path.relative_to(tmp_path / "robot")) for path in (tmp_path / "robot").rglob("*.*")) == [
        "cameras.json",
        "point_cloud/iteration_700/point_cloud.ply",
    ]
    # As get_combined_args reads it back.
    from argparse import Namespace

    arguments = eval((tmp_path / "robot/cfg_args").read_text(), {"Namespace": Namespace})
    assert (arguments.sh_degree, arguments.white_background) == (2, True)
    plain = read_splats(tmp_path / "robot/point_cloud/iteration_700/point_cloud.ply")
    torch.testing.assert_close(plain.means, cloud.means)
    with pytest.raises(UserError, match="never overwritten"):
        write_splats(tmp_path / "robot", cloud, "inria", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["robot"]


def test_cameras_are_those_of_training_in_the_axes_of_the_file(tmp_path: Path) -> None:
    cameras = CameraConfig(distance=(2.0, 4.0), fov_y_deg=(30.0, 60.0))
    options = ExportOptions(scale=1.0)
    write_splats(tmp_path / "a", cloud_named("degree 0"), "inria", options=options, origin=Origin(cameras=cameras))
    views = json.loads((tmp_path / "a/cameras.json").read_text())
    ring = ring_cameras(cameras, 24, 512, elevation_deg=15.0)
    distance = np.linalg.norm(views[0]["position"])
    assert [view["id"] for view in views] == list(range(24))
    for view, pose, lens in zip(views, ring.world_from_camera.numpy(), ring.intrinsics.numpy(), strict=True):
        np.testing.assert_allclose(view["rotation"], VIEWER_AXES @ pose[:3, :3], atol=1e-5)
        np.testing.assert_allclose(np.array(view["position"]) / distance, VIEWER_AXES @ pose[:3, 3] / 3.0, atol=1e-5)
        np.testing.assert_allclose((view["fx"], view["fy"], view["width"]), (lens[0, 0], lens[1, 1], 512), rtol=1e-5)
    # The cameras stand farther away by as much as the object became larger.
    unscaled = read_splats(tmp_path / "a").means.norm(dim=1).max() / cloud_named("degree 0").means.norm(dim=1).max()
    assert distance == pytest.approx(3.0 * float(unscaled), rel=1e-4)


def test_the_last_iteration_is_read(tmp_path: Path) -> None:
    for step, name in ((7000, "degree 0"), (30000, "degree 1"), (900, "degree 0")):
        write_splats(tmp_path / f"step{step}", cloud_named(name), "inria", origin=Origin(step=step))
        part = Path("point_cloud") / f"iteration_{step}"
        (tmp_path / "all" / part).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"step{step}" / part).rename(tmp_path / "all" / part)
    (tmp_path / "all/point_cloud/iteration_99999").mkdir()
    (tmp_path / "all/point_cloud/iteration_best").mkdir()
    torch.testing.assert_close(
        read_splats(tmp_path / "all").sh_rest, cloud_named("degree 1").sh_rest, atol=1e-5, rtol=0
    )
    assert load(tmp_path / "all").representation.num_points == 300
