"""`sdi-gs batch`: a list of prompts made, gone on with, and refused."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import held_worker
import pytest
from command_line import QUICK, files_in, refusal

from sdi_gs.batch.state import replay
from sdi_gs.commands.main import main

OPTIONS = ["--preset", "smoke", "--device", "cpu", *QUICK]
LONG = ["--steps", "30", "--outputs.checkpoint-every", "5", "--outputs.preview-every", "0"]
HELD = f"""
import sys
from sdi_gs.batch import local_engine
from sdi_gs.commands.main import main

local_engine.PROGRAM = {held_worker.PROGRAM!r}
sys.exit(main())
"""
"""The program, whose workers stand still at the first checkpoint."""


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "list.txt"
    path.write_text("a blue robot\n# a comment\na red mushroom\n")
    return path


def batch(prompts: Path, out: Path, *more: str) -> list[str]:
    return ["batch", str(prompts), *OPTIONS, "--output-dir", str(out), *more]


@contextmanager
def held_program(arguments: Sequence[str], mark: Path) -> Iterator[subprocess.Popen[str]]:
    command, environment = [sys.executable, "-c", HELD, *arguments], os.environ | held_worker.held_environment(mark)
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_checkpoint(out: Path, seconds: float = 600.0) -> None:
    end = time.monotonic() + seconds
    while not list(out.glob("runs/*/checkpoints/step_*")):
        assert time.monotonic() < end, "no checkpoint appeared"
        time.sleep(0.05)


def test_a_batch_is_made_once_and_its_runs_are_like_single_ones(
    tmp_path: Path, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(batch(prompts, out, "--steps", "4")) == 0
    assert capsys.readouterr().out == f"{out}/index.html\n"
    state = replay(out)
    assert [(known.status, known.step) for known in state.rows] == [("finished", 4)] * 2
    assert all("judge_class" in known.scores for known in state.rows)
    single = tmp_path / "single"
    settings = ["--prompt", "a red mushroom", *OPTIONS, "--steps", "4", "--output-dir", str(single)]
    assert main(["train", *settings]) == 0
    folder = state.rows[1].row.folder(out)
    for name in ("splats.ply", "config.yaml", "contact_sheet.png"):
        assert (folder / name).read_bytes() == (single / name).read_bytes()
    before = files_in(out / "runs")
    assert main(batch(prompts, out, "--steps", "4", "--keep-best", "1")) == 0
    assert files_in(out / "runs") == before
    capsys.readouterr()
    assert main(["batch", "status", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["finished"] == 2
    assert '"best": true' in (out / "index.html").read_text()
    line = refusal_after_lines(batch(prompts, out, "--steps", "5"), capsys)
    assert line.startswith(f"sdi-gs: {out} holds another batch, with steps 4, not 5")


def refusal_after_lines(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The last line of a command that prints what it found before it refuses."""
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    return said.err.splitlines()[-1]


def test_bad_rows_are_listed_and_nothing_is_started(
    tmp_path: Path, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts.write_text("a violin\na blue robot\na green harp\n")
    assert main(batch(prompts, tmp_path / "out")) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[0] for line in lines[:2]] == [f"{prompts}, line {n}" for n in (1, 3)]
    assert "2 bad rows" in lines[-1]
    assert not (tmp_path / "out").exists()


def test_a_prompt_that_keep_best_cannot_score_is_refused_before_it_is_made(
    tmp_path: Path, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts.write_text("a corgi wearing a top hat\n")
    more = ["--prior", "sd21-base", "--keep-best", "1"]
    assert "not under sd21-base" in refusal_after_lines(batch(prompts, tmp_path / "out", *more), capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--prompt", "x"], "leave --prompt out"),
        (["--score", "x", "--keep-best", "1"], "unknown score x"),
        (["--seeds", "-1"], "seeds"),
        (["--workers", "0"], "workers"),
        (["--ray-address", "auto"], "--ray-address is for Ray: add --engine ray"),
        (["--collect"], "--collect is for Ray"),
        (["--ray-dashboard"], "--ray-dashboard is for Ray"),
        (["--seeds", "1", "--seed", "3"], "--seed 3 has no effect beside --seeds"),
        (["--outputs.turntable-size", "99999"], "turntable_size must be 16 to 4096"),
        (["--export", "nix"], "unknown format nix"),
        (["--key", "k"], "--key k chooses a list of a prompt library"),
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(
    tmp_path: Path, prompts: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    assert words in refusal(batch(prompts, tmp_path / "out", *more), capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--gpus-per-run", "0.5"], "--gpus-per-run 0.5 is for cards, and these runs are made on the CPU"),
        (["--engine", "ray", "--gpus-per-run", "0.5"], "--gpus-per-run 0.5 is for cards"),
        (["--engine", "ray", "--collect-every", "5"], "--collect-every 5 goes with --collect"),
        (["--engine", "ray", "--device", "cuda:1"], "--device cuda:1 names a card, which Ray chooses"),
        (["--engine", "ray", "--ray-dashboard", "--ray-address", "auto"], "--ray-dashboard is for a cluster that is"),
    ],
    ids=str,
)
def test_options_without_effect_on_the_workers_are_refused(
    tmp_path: Path, prompts: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    if "ray" in more:
        pytest.importorskip("ray")
    assert words in refusal_after_lines(batch(prompts, tmp_path / "out", *more), capsys)
    assert not (tmp_path / "out").exists()


def test_ray_is_asked_for_where_it_is_missing(
    tmp_path: Path, prompts: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "ray" else find(name, *more))
    line = refusal(batch(prompts, tmp_path / "out", "--engine", "ray"), capsys)
    assert line == 'sdi-gs: --engine ray needs Ray: pip install "sdi-gs[ray]", or use --engine local'


def test_an_address_without_a_cluster_is_refused_at_once(
    tmp_path: Path, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray")
    # A port that nobody listens at, and that nobody else can take.
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for given, words in ((address, f"no Ray cluster answers at {address}"), ("nonsense", "means nothing")):
            ray = ["--engine", "ray", "--ray-address", given]
            assert words in refusal_after_lines(batch(prompts, tmp_path / "out", *ray), capsys)
            assert not (tmp_path / "out").exists()


def test_the_status_of_a_folder_without_a_batch_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "holds no batch" in refusal(["batch", "status", str(tmp_path)], capsys)
    line = refusal(["batch", "status", str(tmp_path), "--nix"], capsys)
    assert line == "sdi-gs: Unrecognized options: --nix (see sdi-gs batch status --help)"


def test_help_lists_the_options_of_a_batch_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["batch", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--max-failures" in out
    assert "--guidance.noise" not in out
    assert "sdi-gs train --help-all" in out


@pytest.mark.slow
@pytest.mark.parametrize("end", ["Ctrl-C", "Ctrl-C twice", "SIGTERM", "kill -9"])
def test_an_interrupted_batch_goes_on_to_the_same_bytes(tmp_path: Path, prompts: Path, end: str) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    with held_program(batch(prompts, out, *LONG), tmp_path / "held") as process:
        wait_for_checkpoint(out)
        number = {"kill -9": signal.SIGKILL, "SIGTERM": signal.SIGTERM}.get(end, signal.SIGINT)
        process.send_signal(number)
        if end == "Ctrl-C twice":
            time.sleep(0.05)
            process.send_signal(number)
        _, err = process.communicate(timeout=600)
    assert process.returncode == (-signal.SIGKILL if end == "kill -9" else 130)
    assert "Traceback" not in err
    statuses = [known.status for known in replay(out).rows]
    # That of another worker may have been finished before.
    assert statuses.count("finished") < 2
    # A row that is saved between two of them is stopped as after one.
    if end in ("Ctrl-C", "SIGTERM"):
        assert "stopped" in statuses
    elif end == "kill -9":
        assert "stopped" not in statuses
    assert main(batch(prompts, out, *LONG)) == 0
    assert main(batch(prompts, whole, *LONG)) == 0
    for known in replay(out).rows:
        left, right = known.row.folder(out), known.row.folder(whole)
        assert (left / "splats.ply").read_bytes() == (right / "splats.ply").read_bytes()
    lines = [json.loads(line) for line in (out / "batch.jsonl").read_text().splitlines()]
    assert set(Counter(line["key"] for line in lines if line["event"] == "finished").values()) == {1}


@pytest.mark.slow
def test_a_second_batch_on_the_same_folder_is_refused_while_the_first_one_lives(
    tmp_path: Path, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with held_program(batch(prompts, out, *LONG), tmp_path / "held") as process:
        wait_for_checkpoint(out)
        line = refusal_after_lines(batch(prompts, out, *LONG), capsys)
        assert f"is being written by another process (process {process.pid} on " in line
        assert main(["batch", "status", str(out)]) == 0
        assert "a program works on this batch now" in capsys.readouterr().out
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert main(["batch", "status", str(out)]) == 0
    assert "a program works on this batch now" not in capsys.readouterr().out
