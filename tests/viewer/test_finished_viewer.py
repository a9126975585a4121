"""The page of splats that nobody trains."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sdi_gs.pictures.framing import Framing
from sdi_gs.representations.gaussians import Gaussians
from sdi_gs.runs.loading import load
from sdi_gs.splats.ply import read_splat_ply, write_splat_ply
from sdi_gs.viewer import labels
from sdi_gs.viewer.server import FinishedViewer
from sdi_gs.viewer.standpoint import standpoint_of
from sdi_gs.viewer.steering import LABELS


@pytest.fixture
def source(ball: Callable[..., Gaussians], tmp_path: Path) -> Path:
    """A splat file far from the origin and many times as large as an object of ours."""
    cloud = ball(50).splats()
    cloud.means[:] = 30.0 * cloud.means + torch.tensor([1000.0, 0.0, -500.0])
    cloud.log_scales[:] += 1.5
    path = tmp_path / "foreign.ply"
    write_splat_ply(path, cloud, frame="train")
    return path


@pytest.fixture
def viewer(source: Path) -> Iterator[FinishedViewer]:
    with FinishedViewer(load(source, frame="train"), port=0, device=torch.device("cpu")) as viewer:
        yield viewer


def test_a_file_is_shown_with_its_name_and_count(
    viewer: FinishedViewer, browsers: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    browser = browsers(viewer.port)
    [message] = wait_until(lambda: browser.of_kind("GaussianSplatsMessage"))
    assert message["name"] == labels.SPLATS_NODE
    assert 32 * 50 in message["_sizes"]
    wait_until(lambda: "50 Gaussians" in browser.texts())
    assert "foreign" in browser.texts()


def test_the_crop_box_begins_around_the_object_wherever_that_is(
    viewer: FinishedViewer, source: Path, browsers: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    browser = browsers(viewer.port)
    wait_until(lambda: browser.of_kind("GaussianSplatsMessage"))
    values = {
        m["props"]["label"]: m["value"] for m in browser.messages if "label" in m.get("props", {}) and "value" in m
    }
    means = read_splat_ply(source, frame="train").means
    assert bool((means > torch.tensor(values[labels.CROP_MIN])).all())
    assert bool((means < torch.tensor(values[labels.CROP_MAX])).all())


def test_nothing_that_only_training_has_is_offered(
    viewer: FinishedViewer, browsers: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    browser = browsers(viewer.port)

    def shown() -> set[str]:
        return {message["props"].get("label") for message in browser.messages if "props" in message}

    # The client's own controls, and those that all share, come in two streams.
    wait_until(lambda: {labels.PICTURE, labels.MODE, labels.BACKGROUND} <= shown())
    wait_until(lambda: browser.of_kind("ReplayDoneMessage"))
    assert {labels.PICTURE, labels.DOWNLOAD_PLY, labels.CROP} <= shown()
    assert shown().isdisjoint({labels.PAUSE, LABELS["prompt"], labels.APPLY, labels.TRAINING_SHARE})
    modes = next(m["props"]["options"] for m in browser.messages if m.get("props", {}).get("label") == labels.MODE)
    assert list(modes) == ["rgb", "depth", "normal", "alpha"]


def test_the_camera_starts_where_all_of_the_scene_is_seen(viewer: FinishedViewer, source: Path) -> None:
    start = viewer.server.initial_camera
    cloud = read_splat_ply(source, frame="train")
    position, middle = torch.from_numpy(start.position).float(), torch.from_numpy(start.look_at).float()
    torch.testing.assert_close(middle, cloud.means.median(dim=0).values)
    forward = torch.nn.functional.normalize(middle - position, dim=0)
    offsets = cloud.means - position
    angles = torch.rad2deg(torch.acos((offsets @ forward) / offsets.norm(dim=1)))
    assert angles.max() < 20.0
    assert angles.max() > 10.0


def test_the_render_view_works_on_a_scene_of_any_size(
    viewer: FinishedViewer, browsers: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    browser = browsers(viewer.port)
    browser.set_value(labels.PICTURE, "render")
    wait_until(lambda: [m for m in browser.of_kind("BackgroundImageMessage") if m["format"] == "jpeg"])
    assert labels.VIEWING_RENDER_NOTE in browser.texts()
    assert browser.of_kind("NotificationShowMessage") == []


def test_front_is_seen_from_plus_x() -> None:
    standpoint = standpoint_of(Framing(middle=(5.0, 2.0, -3.0), distance=4.0, fov_y_deg=40.0))
    middle = torch.tensor(standpoint.middle)
    sides = {"front": (1, 0, 0), "side": (0, 1, 0), "back": (-1, 0, 0)}
    for (azimuth, elevation), direction in zip([(0, 0), (90, 0), (180, 0)], sides.values(), strict=True):
        offset = torch.tensor(standpoint.position(azimuth, elevation)) - middle
        torch.testing.assert_close(offset / standpoint.distance, torch.tensor(direction).float(), atol=1e-5, rtol=0)
