"""`sdi-gs study`: planned, made once, gone on with, shared and refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sdi_gs.batch.state import replay
from sdi_gs.commands import study as command
from sdi_gs.commands.main import main
from sdi_gs.runs.writer_lock import only_writer
from sdi_gs.study import prediction
from sdi_gs.study.cost import Cost
from sdi_gs.study.page import MARKS

TEXT = """
title: Tried
about: Whether it runs.
preset: smoke
set: {steps: 4, ideal_prior.renders_per_view: 2, ideal_prior.unconditional_renders: 4, gaussians.num_initial: 50}
arms:
  sdi: {title: SDI}
  sds: {title: SDS, set: {guidance.noise: random}}
prompts: [a blue robot]
metrics: [judge_class]
comparisons: [[sdi, sds]]
"""


@pytest.fixture
def tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cost = Cost(alone=1.0, first=1.0, further=1.0, conditional=1.0, unconditional=1.0, both=1.0)
    monkeypatch.setattr(prediction, "measure_cost", lambda config: cost)
    monkeypatch.setattr(prediction.Predictor.__init__, "__kwdefaults__", {"measure": lambda config: cost})
    path = tmp_path / "tried.yaml"
    path.write_text(TEXT)
    return path


def run(path: Path, out: Path, *more: str) -> list[str]:
    return ["study", str(path), "--output-dir", str(out), "--device", "cpu", *more]


def test_a_dry_run_prints_runs_calls_and_hours_and_writes_nothing(
    tried: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(run(tried, tmp_path / "out", "--dry-run", "--seeds", "0", "1")) == 0
    said = capsys.readouterr().err
    assert "4 runs in " in said
    assert "0 finished, 4 to make: " in said and " calls, about 0.0" in said and "CPU hours" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tried.yaml"]


@pytest.mark.slow
def test_a_study_is_made_once_and_another_one_shares_its_runs(
    tried: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(run(tried, out)) == 0
    runs = tmp_path / "study-runs"
    first = {path.parent.name: path.stat().st_mtime_ns for path in (runs / "runs").glob("*/summary.json")}
    page, told = (out / "study.md").read_text(), json.loads((out / "study.json").read_text())
    assert "| SDI minus SDS | steps | 1 |" in page
    assert [row["arm"] for row in told["results"]] == ["sdi", "sds"]
    assert (out / "sheet-main-steps.webp").is_file() and (out / "figure-main.svg").is_file()
    (out / "study.md").write_text(page.replace(MARKS[1], f"It runs.\n\n{MARKS[1]}"))
    other = tmp_path / "other.yaml"
    other.write_text(TEXT.replace("sds: {title: SDS", "third: {title: more, set: {steps: 5}}\n  sds: {title: SDS"))
    capsys.readouterr()
    assert main(run(other, tmp_path / "more")) == 0
    assert "3 runs in" in (said := capsys.readouterr().err) and "2 finished, 1 to make" in said
    assert len(replay(runs).rows) == 3
    again = {path.parent.name: path.stat().st_mtime_ns for path in (runs / "runs").glob("*/summary.json")}
    assert first.items() <= again.items()
    # Another study's runs in the same folder are not counted, what a reader wrote stays, and whoever has made all of a
    # study's runs can write its page while another study holds the folder.
    capsys.readouterr()
    with only_writer(runs):
        assert main(run(tried, out)) == 0
    assert "2 runs in " in (said := capsys.readouterr().err) and "2 finished, 0 to make" in said
    shutil.rmtree(runs / "runs" / next(iter(first)))
    with only_writer(runs):
        assert main(run(tried, out)) == 2
    assert main(run(tried, out)) == 0
    assert "\n2 runs: 2 finished\n" in capsys.readouterr().err
    assert (out / "study.md").read_text() == page.replace(MARKS[1], f"It runs.\n\n{MARKS[1]}")
    # The stored results alone make the same page again, but for the command.
    assert main(["study", str(tried), "--results", str(out / "study.json"), "--output-dir", str(tmp_path / "x")]) == 0
    assert page.partition("## Tables")[2].partition("![")[0] in (tmp_path / "x" / "study.md").read_text()


@pytest.mark.slow
def test_a_stopped_study_goes_on(tried: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    whole = command.make_rows
    monkeypatch.setattr(command, "make_rows", lambda *given, **named: bool(made.append(given[1])) or True)
    out = tmp_path / "out"
    assert main(run(tried, out)) == 130
    assert not (out / "study.md").exists()
    monkeypatch.setattr(command, "make_rows", whole)
    assert main(run(tried, out)) == 0
    assert len(made[0].todo) == 2


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--set", "steps"], "--set takes NAME=VALUE, as steps=100, got steps"),
        (["--set", "stepz=3"], "unknown key stepz"),
        (["--blocks", "2"], "study tried has blocks 1 to 1, got 2"),
        (["--results", "none.json"], "cannot read none.json"),
        (["--set", "guidance.noise=random"], "arm sds changes nothing"),
        (["--ray-address", "auto"], "--ray-address is for Ray"),
        (["--key", "mine"], "--key mine chooses a list of a prompt library: add --prompt-list FILE"),
        (["--prompt-list", "none.txt"], "cannot read none.txt"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    tried: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    assert main(run(tried, tmp_path / "out", *more)) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists() and not (tmp_path / "study-runs").exists()


def test_the_prompts_of_a_list_take_the_place_of_the_studys(
    tried: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library = tmp_path / "library.json"
    library.write_text('{"mine": ["a red ball", "a blue robot", "a green tree"], "theirs": ["a corgi"]}')
    chosen = ["--prompt-list", str(library), "--key", "mine"]
    assert main(run(tried, tmp_path / "out", "--dry-run", *chosen)) == 0
    assert "6 runs in " in capsys.readouterr().err
    assert main(run(tried, tmp_path / "out", "--dry-run", *chosen[:3], "theirs")) == 2
    assert 'prompt "a corgi"' in capsys.readouterr().err
    library.write_text("[3]")
    assert main(run(tried, tmp_path / "out", "--dry-run", *chosen[:2])) == 2
    assert f"{library}, line 1: 3 is no prompt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ("metrics: [clip_score]", "metric clip_score: no weights of clip-b32 here: sdi-gs priors fetch clip-b32"),
        ("metrics: [psnr]", "unknown metric psnr; accepted: psnr_best, "),
        ("metrics: [bound]\nprompts: [a corgi]", 'prompt "a corgi"'),
    ],
)
def test_scores_that_cannot_be_computed_are_refused_before_the_first_run(
    tried: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: str,
    words: str,
) -> None:
    for name in ("HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    text = TEXT.replace("prompts: [a blue robot]\n", "") if "prompts" in changes else TEXT
    tried.write_text(text.replace("metrics: [judge_class]", changes))
    assert main(run(tried, tmp_path / "out")) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1
    assert not (tmp_path / "study-runs").exists()


@pytest.mark.parametrize("option", ["--output-dir", "--runs-dir"])
def test_a_place_that_is_taken_is_refused_before_anything_is_measured(
    tried: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    file, other = tmp_path / "file", tmp_path / "other"
    file.write_text("mine")
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    for taken in (file, *([other] if option == "--runs-dir" else [])):
        assert main([*run(tried, tmp_path / "out"), option, str(taken)]) == 2
        said = capsys.readouterr().err
        assert str(taken) in said and said.count("\n") == 1
    assert file.read_text() == "mine" and [path.name for path in other.iterdir()] == ["mine.txt"]
    assert not (tmp_path / "out").exists()


def test_a_page_of_another_hand_is_refused_before_anything_is_made(
    tried: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "out" / "study.md"
    page.parent.mkdir()
    page.write_text("# Mine\n")
    assert main(run(tried, page.parent)) == 2
    said = capsys.readouterr().err
    assert f"{page} is not written by sdi-gs study" in said and said.count("\n") == 1
    assert page.read_text() == "# Mine\n" and not (tmp_path / "study-runs").exists()


def test_an_unknown_study_names_those_that_are_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "nothing"]) == 2
    assert 'unknown study "nothing"; known: evidence, ' in capsys.readouterr().err
