"""`sdi-gs export`: splat files and meshes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import plyfile
import pytest
from command_line import refusal

from sdi_gs.commands.main import main


def test_export_repeats_the_file_of_the_run(run: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(run), "--out", "again.ply"]) == 0
    assert (here / "again.ply").read_bytes() == (run / "splats.ply").read_bytes()
    assert main(["export", str(run), "--out", "train.ply", "--frame", "train"]) == 0
    files = [plyfile.PlyData.read(here / name)["vertex"] for name in ("train.ply", "again.ply")]
    training, viewer = (np.stack([file[axis] for axis in "xyz"], axis=1) for file in files)
    # The training world is z up and front +x, a viewer's is y down and front -z.
    np.testing.assert_allclose(viewer, training[:, [1, 2, 0]] * [1, -1, -1], atol=1e-6)
    assert "never overwritten" in refusal(["export", str(run), "--out", "again.ply"], capsys)


def test_export_also_makes_splat_files_and_turns_one_kind_into_the_other(
    run: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(run / "checkpoints/step_000006"), "--format", "splat", "--out", "robot.splat"]) == 0
    assert (here / "robot.splat").stat().st_size == 200 * 32
    assert main(["export", "robot.splat"]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == ["robot-export.ply", "200 of 200 Gaussians, of robot.splat"]
    once, twice = (plyfile.PlyData.read(path)["vertex"] for path in (run / "splats.ply", here / "robot-export.ply"))
    # One stores its splats by size, the other as they were; positions are exact in both but for a turn and back.
    order = [np.lexsort((vertex["z"], vertex["x"])) for vertex in (once, twice)]
    for axis in "xyz":
        np.testing.assert_allclose(once[axis][order[0]], twice[axis][order[1]], atol=1e-6)
    assert "never overwritten" in refusal(["export", "robot.splat"], capsys)


def test_export_makes_meshes(run: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import trimesh

    assert main(["export", str(run), "--out", "robot.splat"]) == 0
    assert (here / "robot.splat").stat().st_size == 200 * 32
    coarse = ["--mesh.resolution", "24", "--mesh.level", "0.5"]
    for file_format, name in {"glb": "robot-mesh.glb", "obj": "robot-mesh.obj", "ply-mesh": "robot-mesh.ply"}.items():
        assert main(["export", "robot.splat", "--format", file_format, *coarse]) == 0
        said = capsys.readouterr().out.splitlines()[-2:]
        assert said[0] == name
        assert " triangles at density 0.5, watertight" in said[1]
        assert trimesh.load_mesh(here / name).is_watertight
    assert (
        main(["export", "robot.splat", "--out", "by-name.glb", "--mesh.resolution", "24", "--mesh.level", "0.5"]) == 0
    )
    assert (here / "by-name.glb").read_bytes().startswith(b"glTF")
    said = refusal(["export", "robot.splat", "--format", "splat", "--out", "a.ply"], capsys)
    assert "the name a.ply ends in .ply, and format splat is written as .splat" in said
    assert "never overwritten" in refusal(["export", "robot.splat", "--format", "glb"], capsys)
    high = ["export", str(run), "--format", "glb", "--mesh.level", "1e6"]
    assert "level 1e+06 is never reached" in refusal(high, capsys)
