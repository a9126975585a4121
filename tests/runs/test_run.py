"""A run from its settings to its files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import (
    CPU,
    assert_same_results,
    config,
    start,
    whole_run,
)

from sdi_gs.errors import UserError
from sdi_gs.runs.checkpoint import list_checkpoints
from sdi_gs.runs.events import Event, StepDone
from sdi_gs.runs.finish import read_summary
from sdi_gs.runs.folder import RunFolder, load_run_config
from sdi_gs.runs.loop import train
from sdi_gs.runs.prepare import prepare_run
from sdi_gs.settings.outputs import OutputConfig
from sdi_gs.splats.ply import read_splat_ply


def test_the_same_settings_give_the_same_bytes(whole: RunFolder, tmp_path: Path) -> None:
    again = whole_run(tmp_path / "again")
    assert_same_results(whole, again)
    for preview in whole.previews.iterdir():
        assert (again.previews / preview.name).read_bytes() == preview.read_bytes()


def test_another_seed_gives_another_object(whole: RunFolder, tmp_path: Path) -> None:
    other = whole_run(tmp_path / "other", config(seed=1))
    assert other.splats.read_bytes() != whole.splats.read_bytes()


def test_the_summary_counts_what_the_log_says(whole: RunFolder) -> None:
    summary, steps = read_summary(whole), whole.read_steps()
    assert summary is not None
    assert (summary["prompt"], summary["prior"], summary["seed"]) == ("a blue robot", "toybox-ideal", 0)
    assert summary["prior_is_an_instrument"] is True
    assert summary["step"] == summary["steps"] == len(steps) == 8
    assert summary["predictor_calls"] == sum(step["predictor_calls"] for step in steps)
    assert summary["rounds"] == steps[-1]["round"] == 8
    assert summary["train_seconds"] == pytest.approx(sum(step["seconds"] for step in steps))
    assert summary["n_gaussians"] == steps[-1]["n_gaussians"]
    assert summary["n_exported"] == len(read_splat_ply(whole.splats))
    assert summary["peak_rss_mb"] > 50
    assert summary["versions"]["torch"] == torch.__version__
    for step in steps:
        assert step["loss"] == pytest.approx(sum(step["losses"].values()))


def test_previews_and_checkpoints_come_as_often_as_asked(whole: RunFolder) -> None:
    assert sorted(path.name for path in whole.previews.iterdir()) == ["step_000004.png", "step_000008.png"]
    # The last two of those after steps 3, 6 and 8.
    assert [path.name for path in list_checkpoints(whole.checkpoints)] == ["step_000006", "step_000008"]


def test_outputs_can_be_left_out(tmp_path: Path) -> None:
    none = OutputConfig(preview_every=0, checkpoint_every=0, turntable_frames=0, turntable_size=32)
    run = whole_run(tmp_path / "bare", config(steps=2, outputs=none))
    assert list(run.previews.iterdir()) == []
    assert [path.name for path in list_checkpoints(run.checkpoints)] == ["step_000002"]
    assert not run.turntable.exists()
    assert run.splats.exists()


def test_the_settings_of_a_run_can_be_read_back(whole: RunFolder) -> None:
    assert load_run_config(whole.path) == config()


def test_observers_see_every_step_after_it_was_logged(tmp_path: Path) -> None:
    seen: list[int] = []
    trainer, folder = start(tmp_path / "seen", config(steps=3))

    def observe(event: Event) -> None:
        if isinstance(event, StepDone):
            assert folder.read_steps()[-1]["step"] == event.report.step
            seen.append(event.report.step)

    train(trainer, folder, observers=[observe])
    assert seen == [1, 2, 3]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"prompt": " "}, "the prompt is empty"),
        ({"prompt": "a blue dragon"}, '"dragon"'),
        ({"prior": "nix"}, "prior 'nix' is unknown"),
    ],
)
def test_what_cannot_be_run_leaves_no_folder(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as refused:
        start(tmp_path / "none", config(**changes))
    assert says in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_the_next_free_one_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        _, folder = prepare_run(config(), device=CPU, folder=None)
        assert folder.path == Path(f"outputs/a-blue-robot-{number}")


def test_a_summary_that_is_missing_or_torn_is_none(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert read_summary(folder) is None
    folder.summary.write_text('{"step": 3')
    assert read_summary(folder) is None
    folder.summary.write_text("[]")
    assert read_summary(folder) is None


def test_a_film_that_cannot_be_made_is_said_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get_ffmpeg_exe() -> str:
        raise RuntimeError("no ffmpeg")

    monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", get_ffmpeg_exe)
    with pytest.raises(UserError, match=r"no ffmpeg on this machine; .*, or do without: --outputs.turntable-frames 0"):
        start(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    silent = config(outputs=replace(config().outputs, turntable_frames=0))
    start(tmp_path / "run", silent)
