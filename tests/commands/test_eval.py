"""`sdi-gs eval` on several scenes, on batches and on other tools' folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from batches import batch_of, fail, finish
from command_line import refusal

from sdi_gs.batch.journal import JOURNAL, Journal, RowEvent
from sdi_gs.batch.state import BatchState
from sdi_gs.commands.main import main

QUICK = ["--metrics", "size,divergence", "--views.size", "32", "--views.count", "3"]


@pytest.fixture
def small_batch(run: Path, here: Path) -> Path:
    """A batch of four rows: made, failed, made but gone, and not begun."""
    state = batch_of("a blue robot", "a red ball", "a green cup", "a pink cube")
    finish(state, 0)
    fail(state, 1, "the loss is not finite")
    finish(state, 2)
    return written(state, here / "batch", run)


def written(state: BatchState, folder: Path, run: Path) -> Path:
    folder.mkdir()
    events = [
        RowEvent(event=known.status, key=known.row.key, reason=known.reason)
        for known in state.rows
        if known.status in ("finished", "failed")
    ]
    with Journal(folder / JOURNAL) as journal:
        journal.append(state.header, *(known.row for known in state.rows), *events)
    shutil.copytree(run, state.rows[0].row.folder(folder))
    return folder


def test_a_batch_is_scored_whole(small_batch: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["eval", str(small_batch), *QUICK, "--report", "scores", "--json", "--out", "all.json"]) == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert printed.err.splitlines() == [f"{small_batch}: 1 row not made yet, left out"]
    assert report["counts"] == {"scenes": 3, "failed": 2, "prompts": 3}
    assert [scene["failed"] is None for scene in report["scenes"]] == [True, False, False]
    assert report["scenes"][1]["failed"] == "the loss is not finite"
    assert report["aggregates"]["diverged"]["mean"] == pytest.approx(2 / 3)
    assert report["aggregates"]["diverged"]["mean_finished"] == 0.0
    assert report == json.loads((here / "all.json").read_text()) == json.loads((here / "scores/eval.json").read_text())
    assert len((here / "scores/eval.jsonl").read_text().splitlines()) == 3


def test_several_scenes_are_a_table_of_means(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["eval", str(run), str(run / "splats.ply"), "--prompt", "a blue robot", *QUICK]) == 0
    printed = capsys.readouterr().out
    assert "2 scenes, 1 prompts, 0 failed" in printed
    assert "n_gaussians" in printed


def test_a_single_scene_keeps_its_object_and_its_report_has_the_manifest(
    run: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["eval", str(run), "--metrics", "size", "--json", "--report", "scores"]) == 0
    assert json.loads(capsys.readouterr().out).keys() == {"instrument", "source", "prompt", "n_gaussians"}
    report = json.loads((here / "scores/eval.json").read_text())
    assert report["manifest"]["metrics"] == ["size"]
    assert report["scenes"][0]["seed"] == 0


def test_gpteval3d_gets_its_folders(run: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["eval", str(run), "--layout", "gpteval3d", "--views.size", "16", "--report", "gpt"]) == 0
    assert capsys.readouterr().out.splitlines() == ["gpt/methods/sdi-gs/0/0"]
    folder = here / "gpt/methods/sdi-gs/0/0"
    expected = {f"{kind}_{view}.png" for kind in ("rgb", "normal") for view in range(120)}
    assert {file.name for file in folder.iterdir()} == expected
    assert json.loads((here / "gpt/prompts.json").read_text()) == ["a blue robot"]


@pytest.mark.slow
def test_t3bench_gets_its_files(run: Path, here: Path) -> None:
    assert main(["eval", str(run), "--layout", "t3bench", "--views.size", "16", "--report", "t3"]) == 0
    names = {file.name for file in (here / "t3/a_blue_robot_0").iterdir()}
    assert {f"{place:03d}_{view}.png" for place in range(162) for view in range(5)} < names
    assert len(names) == 2 * 810


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "nothing to score"),
        (["@", "--metrics", "size,ssim"], "unknown metric ssim: choose one of truth"),
        (["@", "--networks.clip", "clip-b64", "--metrics", "clip"], "clip-b64 is no network for scores: give clip-b32"),
        (["@", "--networks.hps", "@/splats.ply", "--metrics", "hps"], "cannot be read as weights"),
        (["@", "--protocol", "toybox", "--views.count", "3"], "--views.count changes a ring of cameras"),
        (["@", "--layout", "t3bench"], "add --report FOLDER"),
        (["@/summary.json"], "it is a file of a run"),
        (["@", "--networks.prompt-template", "a photo"], "needs {prompt} in it"),
        (["@", "--prompts", "nowhere.txt"], "nowhere.txt"),
        (["@", "--key", "mine"], "--key mine chooses a list of a prompt library: add --prompts FILE"),
    ],
)
def test_what_cannot_be_scored_is_refused_in_one_line(
    run: Path, here: Path, options: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert says in refusal(["eval", *(option.replace("@", str(run)) for option in options)], capsys)
    assert list(here.iterdir()) == []


def test_a_prompt_librarys_list_is_chosen_by_its_key(run: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "library.json").write_text('{"mine": ["a red ball", "a green cup"], "theirs": ["a corgi"]}')
    chosen = ["eval", str(run), "--prompts", "library.json"]
    assert "choose one by its key (--key); its keys are mine, theirs" in refusal(chosen, capsys)
    assert "has no key 'ours'" in refusal([*chosen, "--key", "ours"], capsys)
    assert main([*chosen, "--key", "mine", *QUICK, "--report", "scores"]) == 0
    manifest = json.loads((here / "scores" / "eval.json").read_text())["manifest"]
    assert manifest["prompts_to_choose_among"] == 2


def test_an_empty_batch_is_refused(run: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = batch_of("a blue robot")
    written(state, here / "batch", run)
    assert "a batch with nothing to score: none of its 1 rows is made" in refusal(["eval", "batch"], capsys)
