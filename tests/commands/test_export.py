"""`sdi-gs export`: splat files and meshes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import plyfile
import pytest
import torch
from command_line import refusal

from sdi_gs.commands.main import main
from sdi_gs.splats.formats import read_splats

COARSE = ("--mesh.resolution", "24", "--mesh.level", "0.5")


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
    for file_format, name in {"glb": "robot-mesh.glb", "obj": "robot-mesh.obj", "ply-mesh": "robot-mesh.ply"}.items():
        assert main(["export", "robot.splat", "--format", file_format, *COARSE]) == 0
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


def test_several_formats_are_a_file_each(run: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ball = ["export", str(run / "splats.ply")]
    assert main([*ball, "--format", "splat", "glb", "--out", "ball v1.5", *COARSE]) == 0
    assert capsys.readouterr().out.splitlines()[0::2] == ["ball v1.5.splat", "ball v1.5.glb"]
    assert (here / "ball v1.5.splat").stat().st_size == 200 * 32
    assert (here / "ball v1.5.glb").read_bytes().startswith(b"glTF")
    # All names are looked at before the first file is written.
    (here / "again.splat").write_text("mine")
    assert "again.splat exists" in refusal([*ball, "--format", "ply", "splat", "--out", "again"], capsys)
    assert "is for 2 files" in refusal([*ball, "--format", "ply", "splat", "--out", "a.ply"], capsys)
    assert "format ply is given twice" in refusal([*ball, "--format", "ply", "ply", "--out", "a"], capsys)
    both = refusal([*ball, "--format", "ply", "ply-mesh", "--out", "a"], capsys)
    assert "formats ply and ply-mesh would both be written as a.ply" in both
    assert "--sh-degree is for splats, not for formats glb, obj" in refusal(
        [*ball, "--format", "glb", "obj", "--sh-degree", "0", "--out", "a"], capsys
    )
    assert "--mesh.* options are for meshes" in refusal([*ball, "--format", "ply", "--mesh.level", "1"], capsys)
    assert {path.name for path in here.iterdir() if path.is_file()} == {
        "ball v1.5.splat",
        "ball v1.5.glb",
        "again.splat",
    }


def test_training_writes_further_formats_at_its_end(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = ["train", "--preset", "smoke", "--prompt", "a red ball", "--steps", "1", "--export", "splat", "ply"]
    assert "unknown format stl: choose one of" in refusal([*short, "stl", "--output-dir", "none"], capsys)
    assert not (here / "none").exists()
    assert main([*short, "--output-dir", "ball"]) == 0
    splats = read_splats(here / "ball/splats.splat")
    torch.testing.assert_close(splats.means.sum(dim=0), read_splats(here / "ball/splats.ply").means.sum(dim=0))
    assert "ball/splats.splat" in capsys.readouterr().out


def test_what_training_wrote_before_a_stop_is_kept(here: Path) -> None:
    start = ["train", "--preset", "smoke", "--prompt", "a red ball", "--steps", "1", "--export", "splat"]
    assert main([*start, "--output-dir", "ball"]) == 0
    first = (here / "ball/splats.splat").read_bytes()
    assert main(["train", "--resume", "ball", "--extend", "1", "--export", "splat"]) == 0
    assert (here / "ball/splats_stop_1.splat").read_bytes() == first
    assert (here / "ball/splats.splat").read_bytes() != first


def test_a_textured_mesh_is_baked_once_for_all_formats(
    run: Path, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdi_gs.mesh.texture.VIEW_SIZE", 64)
    options = ["--mesh.texture", "128", *COARSE, "--out", "robot"]
    assert main(["export", str(run), "--format", "glb", "obj", "ply-mesh", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {path.name for path in here.iterdir()} == {f"robot.{end}" for end in ("glb", "obj", "mtl", "png", "ply")}
    assert "; texture of 128 x 128 pixels: " in lines[1] and lines[1] == lines[3]
    assert lines[5] == lines[1].partition("; texture")[0]
    said = refusal(["export", str(run), "--format", "ply-mesh", "--mesh.texture", "128"], capsys)
    assert "--mesh.texture is for glb or obj, not for format ply-mesh" in said
    assert "--mesh.unlit is for glb" in refusal(["export", str(run), "--format", "obj", "--mesh.unlit"], capsys)
    assert "texture must be 64 to 8192" in refusal(
        ["export", str(run), "--out", "a.glb", "--mesh.texture", "3"], capsys
    )
