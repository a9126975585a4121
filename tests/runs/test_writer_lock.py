"""One writer per run: a lock that a dead process does not hold."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command_line import files_in, refusal
from small_runs import CPU, crashed_run, start, stopped_run

from sdi_gs.errors import UserError
from sdi_gs.runs.folder import RunFolder
from sdi_gs.runs.loop import run, train
from sdi_gs.runs.prepare import prepare_resume
from sdi_gs.runs.request import RunRequest
from sdi_gs.runs.writer_lock import LOCK, only_writer

HOLD = """
import os, sys, time
from pathlib import Path
from sdi_gs.runs.writer_lock import only_writer
with only_writer(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_by_another(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the folder until it is killed or its input ends."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_run_that_another_process_writes_to_is_neither_resumed_nor_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = crashed_run(tmp_path / "run", 5).path
    trainer, stopped = prepare_resume(folder, device=CPU)
    with held_by_another(folder) as other:
        before = files_in(folder)
        line = refusal(["train", "--resume", str(folder)], capsys)
        assert f"{folder} is being written by another process (process {other.pid} on " in line
        with pytest.raises(UserError, match="is being written by another process"):
            prepare_resume(folder, device=CPU)
        with pytest.raises(UserError, match="is being written by another process"):
            run(trainer, stopped)
        assert files_in(folder) == before
        # To go on elsewhere needs no lock.
        branched, _ = prepare_resume(folder, device=CPU, at=3, folder=tmp_path / "branch")
        assert branched.step == 3
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert (folder / LOCK).exists()
    run(trainer, stopped)
    assert not (folder / LOCK).exists()


def test_a_run_that_trains_is_not_resumed_beside_itself(tmp_path: Path) -> None:
    trainer, folder = start(tmp_path / "run")
    refused = []

    def resume(_: object) -> None:
        if not refused:
            with pytest.raises(UserError, match="is being written by another process"):
                prepare_resume(folder.path, device=CPU)
            refused.append(True)

    run(trainer, folder, observers=[resume])
    assert refused


def test_a_trainer_that_was_passed_by_another_process_does_not_mix_its_steps_in(tmp_path: Path) -> None:
    folder = stopped_run(tmp_path / "run", 4).path
    early, run_folder = prepare_resume(folder, device=CPU)
    late, _ = prepare_resume(folder, device=CPU)
    run(late, run_folder)
    before = files_in(folder)
    with pytest.raises(UserError, match="is at step 8 and was loaded at step 4: .* load it again"):
        run(early, run_folder)
    assert files_in(folder) == before


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.EBADF, errno.EIO])
def test_a_file_system_without_locks_refuses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with only_writer(tmp_path), only_writer(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_does_not_refuse_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with only_writer(tmp_path), pytest.raises(UserError, match=r"another process \(just started\)"):
        with only_writer(tmp_path):
            pass


def test_a_file_that_its_holder_removes_meanwhile_is_not_taken_for_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, calls = fcntl.flock, []

    def removed_first(descriptor: int, operation: int) -> None:
        # The holder before us ends between our opening and our locking.
        if not calls:
            (tmp_path / LOCK).unlink()
        calls.append(descriptor)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", removed_first)
    with only_writer(tmp_path):
        assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} on ")
        with pytest.raises(UserError, match="another process"), only_writer(tmp_path):
            pass
    assert len(calls) == 3


def test_a_run_in_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / LOCK).mkdir()
    with pytest.raises(UserError, match=r"cannot write .*\.writer: "), only_writer(tmp_path):
        pass


def test_steps_are_taken_without_the_lock_by_those_who_hold_it(tmp_path: Path) -> None:
    trainer, folder = start(tmp_path / "run")
    with only_writer(folder.path):
        assert train(trainer, RunFolder(folder.path))


def test_a_checkpoint_to_start_from_is_named_with_its_run_only() -> None:
    with pytest.raises(UserError, match="--at names a checkpoint of a run to go on from: add --resume RUN"):
        RunRequest(at=3)
