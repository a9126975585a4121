"""What is told while a run goes on."""

from __future__ import annotations

import pytest

from sdi_gs.console import training_progress
from sdi_gs.contracts import StepReport


def report(step: int) -> StepReport:
    return StepReport(
        step=step,
        timestep=900 - step,
        losses={"distillation": 0.25, "fog": 0.05},
        num_points=6000,
        predictor_calls=1,
        seconds=0.1,
    )


def lines(capsys: pytest.CaptureFixture[str], steps: range, num_steps: int, *, done: int = 0) -> list[str]:
    with training_progress(num_steps, done=done) as show:
        for step in steps:
            show(report(step))
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


def test_a_resumed_run_begins_where_it_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    told = lines(capsys, range(8, 11), 10, done=7)
    assert [line.split()[1] for line in told] == ["8/10", "9/10", "10/10"]


def test_short_runs_tell_of_every_step(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(lines(capsys, range(1, 4), 3)) == 3


def test_a_terminal_gets_a_live_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    with training_progress(300) as show:
        for step in (1, 2, 3):
            show(report(step))
    said = capsys.readouterr().err
    assert "3/300" in said
    assert "t 897" in said
    assert "loss 0.3000" in said
