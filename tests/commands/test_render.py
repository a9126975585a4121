"""`sdi-gs render`: pictures of runs, checkpoints and files."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import files_in, refusal

from sdi_gs.cameras import CameraBatch
from sdi_gs.commands.main import main
from sdi_gs.pictures import views
from sdi_gs.splats.ply import read_splat_ply, write_splat_ply
from sdi_gs.splats.splat_cloud import SplatCloud


def test_render_writes_to_a_new_folder_every_time(run: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(run / "splats.ply", here / "robot.ply")
    small = ["--size", "32", "--frames", "2", "--views", "2"]
    assert main(["render", "robot.ply", *small]) == 0
    assert main(["render", "robot.ply", *small, "--save-frames", "--background", "black"]) == 0
    assert set(files_in(here / "robot-render-1")) == {"contact_sheet.png", "turntable.mp4"}
    assert "frame_0001.png" in files_in(here / "robot-render-2")
    told = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert {path.parent.name for path in told} == {"robot-render-1", "robot-render-2"}
    assert all(path.is_file() for path in told)
    assert "never overwritten" in refusal(["render", "robot.ply", *small, "--out", "robot-render-1"], capsys)
    assert "a folder for film, sheet" in refusal(["render", "robot.ply", *small, "--out", "film.mp4"], capsys)
    assert "frame train names the axes of a file" in refusal(["render", str(run), *small, "--frame", "train"], capsys)
    (here / "volume").mkdir()
    assert main(["render", "robot.ply", *small, "--out", "volume"]) == 0
    assert set(files_in(here / "volume")) == {"contact_sheet.png", "turntable.mp4"}


def test_a_run_and_its_file_look_the_same(run: Path, here: Path) -> None:
    only_sheet = ["--size", "32", "--frames", "0", "--views", "4"]
    assert main(["render", str(run), *only_sheet, "--out", "from-run"]) == 0
    assert main(["render", str(run / "splats.ply"), *only_sheet, "--out", "from-file"]) == 0
    from PIL import Image

    images = [
        np.asarray(Image.open(here / name / "contact_sheet.png")).astype(int) for name in ("from-run", "from-file")
    ]
    # The file's world is turned and turned back, so that roundings differ by a step of 8 bits.
    assert np.abs(images[0] - images[1]).max() <= 1
    assert images[0].min() < 200, "the pictures show nothing"


def test_a_checkpoint_and_a_splat_file_are_filmed_as_a_run_is(run: Path, here: Path) -> None:
    from PIL import Image

    assert main(["export", str(run), "--format", "splat", "--out", "robot.splat"]) == 0
    only_sheet = ["--size", "32", "--frames", "0", "--views", "4"]
    sources = {"run": run, "checkpoint": run / "checkpoints/step_000006/tensors.safetensors", "splat": "robot.splat"}
    for name, source in sources.items():
        assert main(["render", str(source), *only_sheet, "--out", name]) == 0
    pictures = {name: np.asarray(Image.open(here / name / "contact_sheet.png")).astype(int) for name in sources}
    np.testing.assert_array_equal(pictures["run"], pictures["checkpoint"])
    # Bytes of colour and rotation, the latter up to 0.8 % off, where a run has floats.
    assert np.abs(pictures["run"] - pictures["splat"]).max() <= 6
    assert pictures["splat"].min() < 200, "the picture shows nothing"


def ball_file(path: Path, *, radius: float, middle: tuple[float, float, float]) -> Path:
    """Write 2000 dark splats in a ball, in the training axes."""
    generator = torch.Generator().manual_seed(0)
    offsets = torch.nn.functional.normalize(torch.randn(2000, 3, generator=generator), dim=1)
    cloud = SplatCloud(
        means=offsets * radius + torch.tensor(middle),
        log_scales=torch.full((2000, 3), math.log(0.02 * radius)),
        quats=torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(2000, 4),
        opacity_logit=torch.full((2000,), 4.0),
        sh_dc=torch.full((2000, 3), -1.0),
        sh_rest=torch.zeros(2000, 0, 3),
    )
    write_splat_ply(path, cloud, frame="train")
    return path


SHEET = ["--size", "32", "--frames", "0", "--views", "4", "--frame", "train"]


def dark_share(sheet: Path) -> float:
    from PIL import Image

    return float((np.asarray(Image.open(sheet).convert("L")) < 128).mean())


@pytest.mark.parametrize(
    ("radius", "middle"),
    [(0.5, (5.0, 2.0, -3.0)), (40.0, (0.0, 0.0, 0.0)), (2e-4, (0.0, 0.0, 0.0)), (0.5, (1e4, 0, 0))],
)
def test_a_file_is_seen_wherever_and_however_large_it_is(
    here: Path, capsys: pytest.CaptureFixture[str], radius: float, middle: tuple[float, float, float]
) -> None:
    ball_file(here / "ball.ply", radius=radius, middle=middle)
    assert main(["render", "ball.ply", *SHEET, "--out", "seen"]) == 0
    assert 0.2 < dark_share(here / "seen/contact_sheet.png") < 0.8
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("ball.ply does not fill the training cameras' sight: it is seen from distance ")


def test_the_cameras_can_be_placed_and_an_empty_picture_is_said(
    run: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ball_file(here / "ball.ply", radius=0.5, middle=(5.0, 2.0, -3.0))
    there = ["--camera.look-at", "5", "2", "-3", "--camera.distance", "6"]
    assert main(["render", "ball.ply", *SHEET, "--out", "far", *there]) == 0
    assert capsys.readouterr().err == ""
    assert 0.01 < dark_share(here / "far/contact_sheet.png") < 0.15
    away = ["--camera.look-at", "0", "0", "40", "--camera.distance", "2"]
    for source in ("ball.ply", str(run)):
        look = away if source == "ball.ply" else ["--camera.look-at", "0", "0", "90"]
        sheet = SHEET if source == "ball.ply" else SHEET[:-2]  # A run has no axes to name.
        assert main(["render", source, *sheet, "--out", f"empty-{source.rpartition('/')[2]}", *look]) == 0
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith(f"nothing of {source} is in sight from distance ")


class ClosedViewer:
    """In place of the viewer: closed as soon as it is opened."""

    address = ("http://127.0.0.1:8080", ())

    def __init__(self, *_: object, **__: object) -> None: ...

    def __enter__(self) -> ClosedViewer:
        return self

    def __exit__(self, *_: object) -> None: ...

    def serve_until(self, _: object) -> None: ...


def test_view_says_too_that_nothing_is_in_sight(
    run: Path, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdi_gs.viewer.server.FinishedViewer", ClosedViewer)
    ball_file(here / "ball.ply", radius=0.5, middle=(5.0, 2.0, -3.0))
    capsys.readouterr()
    away = ["--camera.look-at", "0", "0", "90", "--camera.distance", "2"]
    for source, look, says in (
        (str(run), [], None),
        (str(run), away, f"nothing of {run} is in sight from distance 2, looking at 0 0 90"),
        ("ball.ply", ["--frame", "train"], "ball.ply does not fill the training cameras' sight: it is seen"),
        ("ball.ply", [*away, "--frame", "train"], "nothing of ball.ply is in sight from distance 2"),
    ):
        assert main(["view", source, *look, "--port", "0"]) == 0
        lines = [line for line in capsys.readouterr().err.splitlines() if "sight" in line]
        assert len(lines) == (says is not None), lines
        assert says is None or lines[0].startswith(says)


def test_a_file_elsewhere_is_scored_as_it_would_be_at_home(run: Path, here: Path) -> None:
    cloud = read_splat_ply(run / "splats.ply", frame="train")
    far = replace(cloud, means=8.0 * cloud.means + 500.0, log_scales=cloud.log_scales + math.log(8.0))
    near = replace(cloud, means=cloud.means + torch.tensor([3.0, 0.0, 0.0]))
    for name, moved in (("far", far), ("near", near)):
        write_splat_ply(here / f"{name}.ply", moved, frame="train")
        options = ["--prompt", "a blue robot", "--frame", "train", "--no-ceiling", "--draws", "1", "--metrics", "truth"]
        assert main(["eval", f"{name}.ply", *options, "--out", f"{name}.json"]) == 0
    scores = [json.loads((here / f"{name}.json").read_text()) for name in ("far", "near")]
    assert scores[0]["iou_canonical"] == pytest.approx(scores[1]["iou_canonical"], abs=0.01)
    assert scores[0]["iou_canonical"] > 0.1


def test_a_film_is_made_part_by_part_and_its_frames_are_saved(
    run: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest = 0
    render = views.render_views

    def counted(representation: Any, cameras: CameraBatch, *background: Any) -> Any:
        nonlocal largest
        # Only the film's: whether anything is in sight is looked at in smaller pictures.
        largest = max(largest, len(cameras)) if cameras.width == 32 else largest
        return render(representation, cameras, *background)

    monkeypatch.setattr(views, "render_views", counted)
    monkeypatch.setattr(views, "PIXELS_AT_ONCE", 2 * 32 * 32)
    options = ["--size", "32", "--frames", "5", "--views", "0", "--save-frames", "--out", "film"]
    assert main(["render", str(run), *options]) == 0
    assert largest == 2
    names = {f"frame_{index:04d}.png" for index in range(5)} | {"turntable.mp4"}
    assert set(files_in(here / "film")) == names
