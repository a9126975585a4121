"""Runs of a field from the command line: their files, what is made of them, and splats that start from them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import plyfile
import pytest
import torch
from command_line import refusal
from PIL import Image

import sdi_gs.runs.loop
from sdi_gs.commands.main import main
from sdi_gs.pictures.views import render_views
from sdi_gs.representations.gaussians import Gaussians
from sdi_gs.representations.initial_gaussians import initial_gaussians
from sdi_gs.representations.ngp.ngp import Ngp
from sdi_gs.runs.checkpoint import list_checkpoints, load_checkpoint
from sdi_gs.runs.folder import RunFolder
from sdi_gs.runs.loading import load, load_start
from sdi_gs.settings.gaussians import GaussiansConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.toybox import metrics
from sdi_gs.toybox.truth import held_out_cameras
from sdi_gs.training.trainer import Trainer

CPU = torch.device("cpu")
TINY = [
    *("train", "--preset", "smoke", "--prompt", "a blue robot", "--device", "cpu"),
    *("--gaussians.num-initial", "300", "--ideal-prior.renders-per-view", "4"),
    *("--ideal-prior.unconditional-renders", "8", "--outputs.turntable-frames", "2", "--outputs.turntable-size", "32"),
    *("--outputs.checkpoint-every", "3", "--outputs.preview-every", "3"),
    *("--ngp.grid.num-levels", "3", "--ngp.grid.initial-levels", "2", "--ngp.grid.log2-table-size", "8"),
    *("--ngp.hidden-width", "8", "--ngp.samples-per-ray", "32", "--ngp.occupancy-resolution", "16"),
    *("--ngp.occupancy-every", "2"),
]
FIELD = [*TINY, "--representation", "ngp", "--steps", "6"]
RESULTS = ("summary.json", "turntable.mp4", "contact_sheet.png")


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a field; nobody writes to it."""
    folder = tmp_path_factory.mktemp("field") / "robot"
    assert main([*FIELD, "--output-dir", str(folder)]) == 0
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """Let every run be stopped, as by Ctrl-C, after so many of its steps; None lets them end."""
    train = sdi_gs.runs.loop.train

    def patch(steps: int | None) -> None:
        def stopped(trainer: Trainer, folder: RunFolder, **options: Any) -> bool:
            options["should_stop"] = lambda: steps is not None and trainer.step >= steps
            return train(trainer, folder, **options)

        monkeypatch.setattr(sdi_gs.runs.loop, "train", stopped)

    return patch


def summary_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def start_from(path: Path, **changes: Any) -> Gaussians:
    config = GaussiansConfig(init_from=str(path), **changes)
    start = load_start(RunConfig(gaussians=config), device=CPU)
    return initial_gaussians(config, generator=torch.Generator().manual_seed(0), device=CPU, start=start)


def test_a_field_leaves_pictures_and_a_summary_but_no_splats(field: Path) -> None:
    names = {path.name for path in field.iterdir()}
    assert {"config.yaml", "steps.jsonl", "checkpoints", "previews", *RESULTS} <= names
    assert "splats.ply" not in names
    summary, steps = summary_of(field), RunFolder(field).read_steps()
    assert (summary["representation"], summary["n_gaussians"], summary["n_exported"]) == ("ngp", 0, 0)
    assert summary["step"] == summary["steps"] == len(steps) == 6
    assert {"distillation", "orientation", "opaqueness", "z_variance"} <= set(steps[-1]["losses"])
    assert sorted(path.name for path in (field / "previews").iterdir()) == ["step_000003.png", "step_000006.png"]


def test_what_was_made_is_called_a_field(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FIELD, "--steps", "1", "--output-dir", "robot"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("a field, ")
    assert "Gaussians" not in last


def test_a_stopped_field_ends_as_if_it_had_never_stopped(field: Path, tmp_path: Path) -> None:
    folder = tmp_path / "stopped"
    shutil.copytree(field, folder)
    shutil.rmtree(folder / "checkpoints/step_000006")
    for name in RESULTS:
        (folder / name).unlink()
    assert main(["train", "--resume", str(folder), "--device", "cpu"]) == 0
    tensors, others = (
        load_checkpoint(list_checkpoints(RunFolder(run).checkpoints)[-1]).tensors for run in (field, folder)
    )
    assert set(tensors) == set(others)
    assert [name for name, value in tensors.items() if not torch.equal(value, others[name])] == []
    assert (folder / "contact_sheet.png").read_bytes() == (field / "contact_sheet.png").read_bytes()


def test_a_field_is_rendered(field: Path, here: Path) -> None:
    options = ["--frames", "2", "--views", "2", "--size", "32", "--out", "pictures", "--device", "cpu"]
    assert main(["render", str(field), *options]) == 0
    [sheet] = Path("pictures").glob("*.png")
    picture = np.asarray(Image.open(sheet).convert("L"))
    # Paper, and the blob in front of it.
    assert picture.max() == 255
    assert picture.min() < 200


@pytest.mark.slow
def test_a_field_is_scored_and_has_a_ceiling_of_its_own_kind(
    field: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--json", "--ceiling", "--draws", "2", "--image-size", "32", "--device", "cpu"]
    assert main(["eval", str(field), *options]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert (scores["prompt"], scores["step"]) == ("a blue robot", 6)
    assert scores["n_gaussians"] == scores["n_gaussians_ceiling"] == 0
    assert isinstance(load(field).representation, Ngp)
    assert 0.0 < scores["psnr_best"] < 60.0
    assert 0.0 < scores["iou_best"] < 1.0


def test_a_field_is_exported_as_splats_that_are_fitted_once_for_all_formats(
    field: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--max-splats", "300", "--fit-steps", "3", "--out", "robot"]
    assert main(["export", str(field), "--format", "ply", "splat", *options]) == 0
    printed = capsys.readouterr()
    assert printed.err.count("fitting splats to the field: 3 of 3 steps") == 1
    names, lines = printed.out.splitlines()[::2], printed.out.splitlines()[1::2]
    assert names == ["robot.ply", "robot.splat"]
    assert lines[0] == lines[1]
    found = re.search(r"300 Gaussians, after 6 steps, sampled .* at ([0-9.]+) dB .*, ([0-9.]+) dB after 3 st", lines[0])
    assert found is not None
    ply, splat = load(here / "robot.ply"), load(here / "robot.splat")
    assert ply.representation.num_points == splat.representation.num_points > 100
    assert main(["export", str(field), *options[:4], "--out", "again.ply"]) == 0
    assert (here / "again.ply").read_bytes() == (here / "robot.ply").read_bytes()
    said = refusal(["export", str(here / "robot.ply"), "--format", "splat", "--fit-steps", "3"], capsys)
    assert "--fit-steps is for fields" in said
    said = refusal(["export", str(field), "--format", "glb", "--fit-steps", "3"], capsys)
    assert "--fit-steps is for splats, not for format glb" in said


def test_a_field_is_exported_as_a_mesh(field: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import trimesh

    coarse = ["--mesh.resolution", "24", "--mesh.level", "5"]
    assert main(["export", str(field), "--format", "glb", "--out", "robot.glb", *coarse]) == 0
    assert " triangles at density 5, watertight" in capsys.readouterr().out.splitlines()[-1]
    mesh: Any = trimesh.load_mesh(here / "robot.glb")
    assert mesh.is_watertight
    # The bump that every field starts from is 0.5 wide.
    assert 0.1 < np.abs(mesh.vertices).max() < 0.6
    said = refusal(["export", str(field), "--format", "glb", "--out", "none.glb", "--mesh.level", "1e6"], capsys)
    assert "level 1e+06 is never reached" in said
    assert not (here / "none.glb").exists()


# Splats that start from a run.


def test_the_first_splats_look_like_the_field(field: Path) -> None:
    splats, other = start_from(field, num_initial=2000), load(field).representation
    assert len(splats) == 2000
    cameras = held_out_cameras(32)
    left, right = (render_views(scene, cameras).rgb for scene in (splats, other))
    blank = torch.ones_like(right)
    alike, nothing = (metrics.psnr(picture, right).mean() for picture in (left, blank))
    assert nothing < 20.0
    assert alike > 25.0


def test_splats_start_from_a_field(field: Path, here: Path) -> None:
    assert main([*TINY, "--steps", "1", "--init-from", str(field), "--output-dir", "splats"]) == 0
    summary = summary_of(here / "splats")
    assert (summary["representation"], summary["n_gaussians"]) == ("gaussians", 300)
    assert len(plyfile.PlyData.read(here / "splats/splats.ply")["vertex"]) == summary["n_exported"] > 200


@pytest.mark.slow
def test_splats_start_from_one_of_a_fields_checkpoints(field: Path) -> None:
    early, late = (start_from(field / "checkpoints" / name) for name in ("step_000003", "step_000006"))
    assert not torch.equal(early.params["means"], late.params["means"])
    assert torch.equal(start_from(field).params["means"], late.params["means"])


def test_splats_go_on_from_another_runs_cloud(here: Path) -> None:
    assert main([*TINY, "--steps", "2", "--output-dir", "first"]) == 0
    made = load(here / "first").representation
    assert isinstance(made, Gaussians)
    start = start_from(here / "first", num_initial=17)
    assert {name: bool(torch.equal(value, start.params[name])) for name, value in made.params.items()} == dict.fromkeys(
        made.params, True
    )
    assert main([*TINY, "--steps", "1", "--init-from", "first", "--output-dir", "second"]) == 0
    assert summary_of(here / "second")["n_gaussians"] == len(made)


def test_a_run_that_started_from_a_field_goes_on_without_it(
    field: Path, here: Path, stop_after: Callable[[int | None], None]
) -> None:
    shutil.copytree(field, here / "field")
    stop_after(1)
    assert main([*TINY, "--steps", "3", "--init-from", "field", "--output-dir", "splats"]) == 130
    stop_after(None)
    shutil.rmtree("field")
    assert main(["train", "--resume", "splats", "--device", "cpu"]) == 0
    assert summary_of(here / "splats")["step"] == 3


def test_a_field_that_is_empty_is_no_start(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FIELD, "--steps", "1", "--ngp.blob-radius", "0.005", "--output-dir", "empty"]) == 0
    said = refusal([*TINY, "--init-from", "empty", "--output-dir", "splats"], capsys)
    assert "the field is nearly empty" in said
    assert "train it for longer" in said
    assert not (here / "splats").exists()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nowhere", "cannot start from nowhere: there is no such file or run; check --init-from"),
        ("folder", "cannot start from folder: it is a folder, neither a run (no config.yaml) nor a checkpoint"),
        ("begun", "no checkpoint in"),
    ],
)
def test_what_is_no_run_is_no_start(
    field: Path, here: Path, name: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "folder").mkdir()
    (here / "begun").mkdir()
    shutil.copy(field / "config.yaml", here / "begun")
    assert says in refusal([*TINY, "--init-from", name, "--output-dir", "splats"], capsys)
    assert not (here / "splats").exists()


# Both stages in one command.


def test_two_stages_are_two_runs_one_after_the_other(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--two-stage", "--steps", "5", "--stages.field-share", "0.6", "--stages.t-max", "0.4"]
    assert main([*TINY, *options, "--output-dir", "robot"]) == 0
    said = capsys.readouterr()
    assert "stage 1 of 2: a field, 3 steps" in said.err
    assert "stage 2 of 2: splats from robot-field, 2 steps" in said.err
    assert "robot/splats.ply" in said.out
    first, second = summary_of(here / "robot-field"), summary_of(here / "robot")
    assert (first["representation"], first["step"]) == ("ngp", 3)
    assert (second["representation"], second["step"], second["n_gaussians"]) == ("gaussians", 2, 300)
    assert second["config"]["gaussians"]["init_from"] == "robot-field"
    assert [record["t"] for record in RunFolder(here / "robot").read_steps()][0] == 400


def test_two_stages_without_a_folder_take_the_next_free_ones(here: Path) -> None:
    assert main([*TINY, "--two-stage", "--steps", "2", "--stages.field-share", "0.5"]) == 0
    kinds = [summary_of(here / f"outputs/a-blue-robot-{number}")["representation"] for number in (1, 2)]
    assert kinds == ["ngp", "gaussians"]


def test_an_interrupted_first_stage_tells_how_to_come_to_the_second(
    here: Path, stop_after: Callable[[int | None], None], capsys: pytest.CaptureFixture[str]
) -> None:
    stop_after(2)
    options = ["--two-stage", "--steps", "10", "--stages.field-share", "0.6", "--stages.t-max", "0.4"]
    assert main([*TINY, *options, "--output-dir", "robot"]) == 130
    said = capsys.readouterr().err
    assert "stopped after step 2 of 6; go on with: sdi-gs train --resume robot-field" in said
    assert "--init-from robot-field --steps 4 --guidance.t-max 0.4 --guidance.random-fraction 0" in said
    assert "stage 2" not in said
    assert not (here / "robot").exists()


@pytest.mark.parametrize("taken", ["robot", "robot-field"])
def test_two_stages_overwrite_neither_folder(here: Path, taken: str, capsys: pytest.CaptureFixture[str]) -> None:
    (here / taken).mkdir()
    # An empty folder is as good as a new one.
    (here / taken / "mine.txt").write_text("mine")
    capsys.readouterr()
    assert main([*TINY, "--two-stage", "--output-dir", "robot"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"sdi-gs: {taken} exists and is never overwritten: choose another --output-dir"
    assert [path.name for path in here.iterdir()] == [taken]
