"""`sdi-gs render`: pictures of runs, checkpoints and files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import files_in, refusal

from sdi_gs.commands.main import main


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
