"""A picture, a film or a summary that fails costs neither the object nor the meaning of the exit."""

from __future__ import annotations

import errno
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import refusal
from small_runs import CPU, config, start, stopped_run

from sdi_gs.commands.main import main
from sdi_gs.errors import DiskFullError, UserError
from sdi_gs.runs.events import Event, Finished, Notice, StepDone
from sdi_gs.runs.finish import finish
from sdi_gs.runs.folder import RunFolder
from sdi_gs.runs.loop import run, train
from sdi_gs.runs.prepare import prepare_resume
from sdi_gs.settings.run import RunConfig

ERRORS = {
    "encoder": (UserError("ffmpeg reports 'no'"), "ffmpeg reports 'no'"),
    "disk": (DiskFullError("film.mp4"), "no space left on the disk while writing film.mp4"),
    "system": (OSError(errno.EIO, "Input/output error"), "Input/output error"),
    "memory": (MemoryError(), "out of memory"),
    "text": (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed"), "surrogates not allowed"),
}
OUTPUTS = {
    "save_contact_sheet": "the contact sheet",
    "save_turntable": "the film",
    "RunFolder.write_summary": "the summary",
    "RunFolder.read_steps": "the summary's counts of calls and seconds",
}


def short(**changes: Any) -> RunConfig:
    return config(steps=2, **changes)


def raising(error: Exception) -> Any:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def notices(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Notice)]


@pytest.mark.parametrize(("error", "output"), [*zip(ERRORS, [*OUTPUTS, "save_turntable"], strict=True)])
def test_the_object_is_there_without_what_failed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: str, output: str
) -> None:
    raised, reason = ERRORS[error]
    events = list[Event]()
    trainer, folder = start(tmp_path / "run", short())
    monkeypatch.setattr(f"sdi_gs.runs.finish.{output}", raising(raised))
    summary = run(trainer, folder, observers=[events.append])
    [said] = notices(events)
    assert said.startswith(f"{OUTPUTS[output]} could not be made: ")
    assert reason in said
    assert "\n" not in said
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert finished.complete
    assert folder.splats in finished.files
    assert all(path.is_file() for path in finished.files)
    assert len(finished.files) == (4 if output == "RunFolder.read_steps" else 3)
    assert (summary["step"], summary["n_exported"]) == (2, 150)


def test_a_film_that_fails_leaves_the_exit_code_of_a_finished_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = stopped_run(tmp_path / "run", 6).path
    monkeypatch.setattr("sdi_gs.runs.finish.save_turntable", raising(UserError("no encoder")))
    assert main(["train", "--resume", str(folder)]) == 0
    said = capsys.readouterr()
    assert f"the film could not be made: no encoder; make pictures later with: sdi-gs render {folder}\n" in said.err
    assert str(folder / "splats.ply") in said.out.splitlines()
    assert json.loads((folder / "summary.json").read_text())["step"] == 8


@pytest.mark.parametrize("wrong", ['"much"', "null", "[1]", "1e400", "-5", "1" + "0" * 400])
def test_a_log_that_was_edited_does_not_end_the_run(tmp_path: Path, wrong: str) -> None:
    folder = stopped_run(tmp_path / "run", 6).path
    log = folder / "steps.jsonl"
    first, *others = log.read_text().splitlines()
    edited = json.dumps(json.loads(first) | {"seconds": "@", "predictor_calls": "@"}).replace('"@"', wrong)
    log.write_text("".join(f"{line}\n" for line in (edited, *others)))
    assert main(["train", "--resume", str(folder)]) == 0
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["step"] == 8
    assert 0.0 < summary["train_seconds"] < 1000.0


def test_a_preview_that_fails_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = short(outputs=replace(config().outputs, preview_every=1, turntable_frames=0))
    events = list[Event]()
    trainer, folder = start(tmp_path / "run", settings)
    monkeypatch.setattr("sdi_gs.runs.saving.save_contact_sheet", raising(MemoryError()))
    assert train(trainer, folder, observers=[events.append])
    assert notices(events) == [f"the preview of step {step} could not be made: out of memory" for step in (1, 2)]
    assert [record["step"] for record in folder.read_steps()] == [1, 2]


def test_a_log_that_was_edited_meanwhile_costs_its_counts(tmp_path: Path) -> None:
    trainer, folder = start(tmp_path / "run", short())
    train(trainer, folder)
    folder.steps.write_text('{"step": 1}\n{"step": 2, "seconds": 0.5}\n')
    assert finish(trainer, folder, started=time.perf_counter())["train_seconds"] == 0.5
    folder.steps.write_text("edited\n")
    events = list[Event]()
    finish(trainer, folder, started=time.perf_counter(), emit=events.append)
    assert "steps.jsonl is damaged" in notices(events)[0]
    assert folder.summary.exists()


def test_a_fault_of_the_program_is_not_hidden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trainer, folder = start(tmp_path / "run", short())
    monkeypatch.setattr("sdi_gs.runs.finish.save_turntable", raising(AttributeError("a fault")))
    with pytest.raises(AttributeError, match="a fault"):
        run(trainer, folder)


@pytest.mark.parametrize("place", ["log", "checkpoint", "splats"])
def test_a_full_disk_names_the_command_that_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str
) -> None:
    folder = stopped_run(tmp_path / "it's", 5).path
    trainer, run_folder = prepare_resume(folder, device=CPU)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    match place:
        case "log":
            monkeypatch.setattr(RunFolder, "append_step", raising(DiskFullError(run_folder.steps)))
        case "checkpoint":
            monkeypatch.setattr("sdi_gs.runs.checkpoint._write_synced", raising(full))
        case _:
            monkeypatch.setattr("sdi_gs.runs.finish.write_splat_ply", raising(DiskFullError(run_folder.splats)))
    with pytest.raises(UserError, match="no space left on the disk while writing .*: free some space; step_") as said:
        run(trainer, run_folder)
    assert str(said.value).endswith(f"is saved; go on with: sdi-gs train --resume '{tmp_path}/it'\"'\"'s'")
    monkeypatch.undo()
    run(*prepare_resume(folder, device=CPU))
    assert json.loads(run_folder.summary.read_text())["step"] == 8


def test_a_full_disk_before_the_first_checkpoint_promises_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trainer, folder = start(tmp_path / "run", short())
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(RunFolder, "append_step", raising(DiskFullError(folder.steps)))
    monkeypatch.setattr("sdi_gs.runs.checkpoint._write_synced", raising(full))
    with pytest.raises(UserError, match=r"steps.jsonl: free some space; no step had been saved$"):
        run(trainer, folder)


@pytest.mark.parametrize("option", ["--view-prompts.front", "--prompt", "--negative-prompt", "--init-from", "--prior"])
def test_a_text_that_no_file_can_hold_is_refused_before_the_work(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["train", "--preset", "smoke", "--prompt", "a blue robot", "--guidance.views", "words", "--device", "cpu"]
    # The byte 255, as Python reads it from a command line.
    assert "must be UTF-8, got 'a \\udcff view'" in refusal([*words, option, "a \udcff view"], capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("frames", ["1000000000", "10001", "-1"])
def test_a_film_without_end_is_refused_before_the_work(
    frames: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    line = refusal(["train", "--prompt", "a blue robot", "--outputs.turntable-frames", frames], capsys)
    assert "turntable_frames must be 0 (no video) or 1 to 10000" in line
    assert list(tmp_path.iterdir()) == []


def test_an_observer_sees_every_step_though_pictures_fail(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    events = list[Event]()
    trainer, folder = start(tmp_path / "run", short(outputs=replace(config().outputs, preview_every=1)))
    monkeypatch.setattr("sdi_gs.runs.saving.ring_of_views", raising(RuntimeError("DefaultCPUAllocator: no memory")))
    train(trainer, folder, observers=[events.append])
    assert [event.report.step for event in events if isinstance(event, StepDone)] == [1, 2]
