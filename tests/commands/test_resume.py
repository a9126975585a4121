"""`sdi-gs train --resume`: which runs go on, and which are refused."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import pytest
from command_line import QUICK, SMOKE, files_in, refusal
from run_log import read_events

from sdi_gs.commands.main import main
from sdi_gs.runs.folder import RunFolder


@pytest.mark.parametrize(
    ("options", "key"),
    [
        (["--steps", "8"], "steps is 6, not 8"),
        (["--steps", "8"], "for more steps of the same run leave --steps out and give --extend 2"),
        (["--seed", "1"], "seed is 0, not 1"),
        (["--noise", "random"], "guidance.noise is 'inversion', not 'random'"),
        (["--preset", "toybox-ideal"], "steps is 6, not"),
        (["--output-dir", "elsewhere"], "--output-dir does not go with --resume"),
    ],
    ids=["steps", "more steps", "seed", "noise", "preset", "output-dir"],
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
    events = read_events(RunFolder(stopped_run))
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
