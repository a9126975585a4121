"""Export from Python: which format is chosen, what is written, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from sdi_gs.configs.presets import preset_named
from sdi_gs.errors import UserError
from sdi_gs.mesh.formats import MeshFormat
from sdi_gs.representations.gaussians import Gaussians
from sdi_gs.representations.initial_gaussians import gaussian_ball
from sdi_gs.runs.export import default_path, export
from sdi_gs.runs.export_formats import export_format, export_formats, formats_for
from sdi_gs.runs.loading import SavedScene, load
from sdi_gs.runs.prepare import prepare_run
from sdi_gs.settings.gaussians import GaussiansConfig
from sdi_gs.settings.mesh import MeshConfig
from sdi_gs.splats.formats import SPLAT_FORMATS, SplatFormat, read_splats

CPU = torch.device("cpu")
COARSE = MeshConfig(resolution=24, level=0.2)


@pytest.fixture
def ball() -> Gaussians:
    config = GaussiansConfig(num_initial=200, initial_opacity=0.4)
    return gaussian_ball(config, generator=torch.Generator().manual_seed(0), device=CPU)


def file_of(ball: Gaussians) -> SavedScene:
    return SavedScene(representation=ball, path=Path("ball.splat"), run=None)


@pytest.mark.parametrize("row", export_formats(), ids=lambda row: row.name)
def test_every_format_is_written_by_its_name(row: SplatFormat | MeshFormat, ball: Gaussians, tmp_path: Path) -> None:
    exported = export(ball, tmp_path / "file", format=row.name, mesh=COARSE)
    assert exported.path.stat().st_size > 1000
    assert exported.summary.startswith("200 of 200 Gaussians" if isinstance(row, SplatFormat) else "")
    if isinstance(row, MeshFormat):
        assert "triangles at density 0.2, watertight" in exported.summary


@pytest.mark.parametrize(
    ("name", "magic"), [("a.ply", b"ply\n"), ("a.PLY", b"ply\n"), ("a.glb", b"glTF"), ("a.obj", b"v ")]
)
def test_without_a_format_the_suffix_decides(name: str, magic: bytes, ball: Gaussians, tmp_path: Path) -> None:
    export(ball, str(tmp_path / name), mesh=COARSE)
    assert (tmp_path / name).read_bytes().startswith(magic)


def test_a_scene_a_file_and_what_they_show_are_written_alike(ball: Gaussians, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.ply" for number in range(2)]
    summaries = [export(scene, path).summary for scene, path in zip((ball, file_of(ball)), paths, strict=True)]
    assert summaries == ["200 of 200 Gaussians", "200 of 200 Gaussians, of ball.splat"]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    torch.testing.assert_close(read_splats(paths[0]).means, ball.params["means"].detach())


def test_a_scene_in_training_is_written_as_its_run_is(tmp_path: Path) -> None:
    config = replace(preset_named("smoke").config, prompt="a red ball", steps=1)
    trainer, folder = prepare_run(config, device=CPU, folder=tmp_path / "run")
    export(trainer.scene, tmp_path / "a.ply", frame="train")
    expected = trainer.scene.representation.splats()
    assert expected is not None
    torch.testing.assert_close(read_splats(tmp_path / "a.ply", frame="train").means, expected.means)


def test_a_format_of_your_own_needs_no_table(ball: Gaussians, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stl_of_this_test.py").write_text(
        "from sdi_gs.mesh.trimesh_surface import trimesh_surface\n"
        "def WRITER(path, mesh, *, options, origin, overwrite):\n"
        "    trimesh_surface(mesh, coloured=False).export(path, file_type='stl')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    stl = MeshFormat(name="stl", suffix=".stl", summary="triangles", module="stl_of_this_test")
    export(ball, tmp_path / "ball.stl", format=stl, mesh=COARSE)
    found = trimesh.load_mesh(tmp_path / "ball.stl")
    reach = np.abs(found.bounds).max()
    assert found.is_watertight
    assert 0.3 < reach < 2.0


def test_the_usual_names(ball: Gaussians) -> None:
    splats, glb = export_format("splat"), export_format("glb")
    scene = SavedScene(representation=ball, path=Path("there/ball.ply"), run=None)
    assert default_path(scene, splats) == Path("there/ball-export.splat")
    assert default_path(scene, glb) == Path("there/ball-mesh.glb")


def test_a_loss_is_reported(ball: Gaussians, tmp_path: Path) -> None:
    wide = Gaussians({**ball.params, "shN": torch.zeros(200, 3, 3)})
    assert "one colour per Gaussian" in str(export(wide, tmp_path / "a.splat").remark)
    assert export(ball, tmp_path / "b.splat").remark is None
    opacities = ball.params["opacities"].detach().clone()
    opacities[:5], opacities[5:10] = -30.0, math.inf
    faint = Gaussians({**ball.params, "opacities": opacities})
    exported = export(faint, tmp_path / "c.ply")
    assert exported.summary == "195 of 200 Gaussians"
    assert exported.remark == "5 of 200 Gaussians are left out (5 transparent)"


def test_bad_input_is_refused_in_one_line(ball: Gaussians, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"leaves the format open: end it in one of .ply, .splat, .*.glb, .obj"):
        export(ball, tmp_path / "ball")
    known = ", ".join(row.name for row in export_formats())
    with pytest.raises(UserError, match=f"unknown format stl: choose one of {known}"):
        export(ball, tmp_path / "a.stl", format="stl")
    (tmp_path / "a.ply").write_text("mine")
    with pytest.raises(UserError, match="never overwritten"):
        export(ball, tmp_path / "a.ply")
    assert (tmp_path / "a.ply").read_text() == "mine"


def test_an_ending_and_a_format_that_contradict_are_refused(ball: Gaussians, tmp_path: Path) -> None:
    contradictions = {
        "a.ply": ("splat", "glb", "obj"),
        "a.splat": ("ply", "glb", "ply-mesh"),
        "a.GLB": ("ply", "splat", "obj"),
        "a.spz": ("ply", "splat"),
        "a.mp4": ("ply", "glb"),
        "robot.tar.gz": ("ply",),
    }
    for name, formats in contradictions.items():
        for file_format in formats:
            with pytest.raises(UserError, match=f"ends in .*, and format {file_format} is written as .*: leave the"):
                export(ball, tmp_path / name, format=file_format)
            with pytest.raises(UserError, match="leave the format out, or end the name in"):
                formats_for(tmp_path / name, [file_format])
    assert not list(tmp_path.iterdir())
    # A name of no format's ending is the user's own.
    for name, file_format in {"a.PLY": "ply-mesh", "a": "splat", "robot v1.5": "ply", "a.b.glb": "glb"}.items():
        assert [row.name for row in formats_for(Path(name), [file_format])] == [file_format]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (None, "ply"),
        ("a.glb", "glb"),
        ("a.splat", "splat"),
        ("a.ply", "ply"),
        ("a.compressed.ply", "compressed-ply"),
        ("there.glb/a.OBJ", "obj"),
    ],
)
def test_without_a_format_the_ending_decides_on_the_command_line_too(name: str | None, expected: str) -> None:
    assert [row.name for row in formats_for(None if name is None else Path(name), [])] == [expected]


def test_an_exported_file_loads_again(ball: Gaussians, tmp_path: Path) -> None:
    for row in [row for row in SPLAT_FORMATS if row.reads]:
        path = tmp_path / f"{row.name}{row.suffix}"
        export(ball, path, format=row)
        assert load(path).representation.num_points == 200
