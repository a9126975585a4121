"""What a run prints while it goes on, and at its end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sdi_gs.configs.presets import preset_named
from sdi_gs.contracts import StepReport
from sdi_gs.runs.console_observer import ConsoleObserver, training_progress
from sdi_gs.runs.events import (
    CheckpointSaved,
    Event,
    Finished,
    Notice,
    Planned,
    Resumed,
    Saving,
    SettingsChanged,
    StepDone,
    TierLowered,
    TrainingStarted,
)
from sdi_gs.settings.tiers import tier_named


def report(step: int) -> StepReport:
    return StepReport(
        step=step,
        timestep=900 - step,
        losses={"distillation": 0.25, "fog": 0.05},
        num_points=6000,
        num_rounds=1,
        predictor_calls=1,
        seconds=0.1,
    )


def lines(capsys: pytest.CaptureFixture[str], steps: range, num_steps: int, *, done: int = 0) -> list[str]:
    with training_progress(num_steps, done=done) as show:
        for step in steps:
            show(report(step), num_steps)
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def test_without_a_terminal_a_run_tells_of_its_first_step_and_of_every_tenth_part(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = lines(capsys, range(1, 301), 300)
    assert [line.split()[1] for line in told] == ["1/300", *(f"{step}/300" for step in range(30, 301, 30))]
    assert all("t 8" in line or "t 6" in line or "t 7" in line for line in told)
    assert all("loss 0.3000" in line and "6000 Gaussians" in line for line in told)
    assert "- steps/s" in told[0], "the first step may compile kernels and says nothing of the speed"
    assert told[1].endswith(" s left")


def test_a_run_with_replay_tells_its_rounds(capsys: pytest.CaptureFixture[str]) -> None:
    told = lines(capsys, range(1, 11), 10)
    assert "round 1  t 898  loss" in told[1]
    with training_progress(10) as show:
        show(replace(report(2), num_rounds=2), 10)
    assert "round" not in capsys.readouterr().err


def test_a_resumed_run_begins_where_it_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    told = lines(capsys, range(8, 11), 10, done=7)
    assert [line.split()[1] for line in told] == ["8/10", "9/10", "10/10"]


def test_short_runs_tell_of_every_step(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(lines(capsys, range(1, 4), 3)) == 3


@pytest.mark.parametrize("total", [300, 500])
def test_a_terminal_gets_a_live_line(
    total: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    with training_progress(300) as show:
        for step in (1, 2, 3):
            show(report(step), total)
    said = capsys.readouterr().err
    assert f"3/{total}" in said
    assert "t 897" in said
    assert "loss 0.3000" in said


def finished(*, step: int = 3, made: str = "812 Gaussians") -> Finished:
    summary = {"step": step, "steps": 3, "wall_seconds": 12.34, "peak_rss_mb": 456.7}
    files = (Path("robot/splats.ply"), Path("robot/summary.json"))
    return Finished(folder=Path("robot"), files=files, made=made, summary=summary, complete=step == 3)


def printed(capsys: pytest.CaptureFixture[str], *events: Event) -> tuple[list[str], list[str]]:
    """What the observer prints to stdout and to stderr."""
    with ConsoleObserver() as console:
        for event in events:
            console(event)
    captured = capsys.readouterr()
    return captured.out.splitlines(), captured.err.splitlines()


def test_an_extended_run_has_more_steps_to_go(capsys: pytest.CaptureFixture[str]) -> None:
    _, err = printed(
        capsys,
        TrainingStarted(step=0, num_steps=3),
        StepDone(report=report(1)),
        SettingsChanged(step=1, changed={"extend": [0, 2], "prompt": ["a", "b"]}),
        StepDone(report=report(2)),
        SettingsChanged(step=2, changed={"prompt": ["b", "a"]}),
        StepDone(report=report(5)),
    )
    assert [line.split()[1] for line in err] == ["1/3", "2/5", "5/5"]


def test_results_go_to_stdout_and_all_else_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    out, err = printed(
        capsys,
        Planned(config=preset_named("smoke").config, device="cpu"),
        Notice(text="a notice"),
        TrainingStarted(step=0, num_steps=3),
        StepDone(report=report(1)),
        CheckpointSaved(step=1, path=Path("robot/checkpoints/step_000001")),
        TierLowered(step=2, tier=tier_named("24")),
        StepDone(report=report(2)),
        StepDone(report=report(3)),
        Saving(step=3),
        finished(),
    )
    assert out == ["robot/splats.ply", "robot/summary.json", "812 Gaussians, 12.3 s, peak memory 457 MiB"]
    summary = tier_named("24").summary
    assert [err[0], err[2], err[-1]] == [
        "a notice",
        f"step 2: out of memory; repeating it on tier 24 ({summary}); nothing is lost",
        "saving and exporting",
    ]
    assert [line.split()[1] for line in err if line.startswith("step ") and "/" in line] == ["1/3", "2/3", "3/3"]


def test_a_stopped_run_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    resumed = Resumed(folder=Path("robot"), step=1, num_steps=3)
    out, err = printed(capsys, resumed, finished(step=2, made="a field"))
    assert out[-1] == "a field, 12.3 s, peak memory 457 MiB"
    assert err == [
        "resuming robot after step 1 of 3",
        "stopped after step 2 of 3; go on with: sdi-gs train --resume robot",
    ]


def test_steps_outside_a_run_show_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, StepDone(report=report(1))) == ([], [])


def test_a_bar_ends_with_the_observer_even_after_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with pytest.raises(ZeroDivisionError), ConsoleObserver() as console:
        console(TrainingStarted(step=0, num_steps=3))
        console(StepDone(report=report(1)))
        raise ZeroDivisionError
    # The cursor, which the bar hides, is shown again.
    assert capsys.readouterr().err.rstrip().endswith("\x1b[?25h\r\x1b[1A\x1b[2K")
