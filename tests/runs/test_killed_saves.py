"""A program that is killed while it saves a checkpoint: a whole one is found at every moment."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sdi_gs.errors import UserError
from sdi_gs.runs.checkpoint import checkpoint_at, latest_checkpoint, list_checkpoints, load_checkpoint, save_checkpoint
from sdi_gs.runs.interrupts import StoppedAtOnce


def save(folder: Path, step: int, value: float, keep: int | None = 2) -> Path:
    return save_checkpoint(folder, step, {"means": torch.full((4,), value)}, {"value": value}, keep=keep)


def value_of(path: Path) -> float:
    """The value that a checkpoint was saved with, the same in both of its files."""
    checkpoint = load_checkpoint(path)
    value = checkpoint.meta["value"]
    assert isinstance(value, float)
    assert torch.equal(checkpoint.tensors["means"], torch.full((4,), value))
    return value


# Every call by which a save changes the disk, one after the other, is the last one that the program makes.
KILL = """
import os, shutil, sys
from pathlib import Path
import torch
from sdi_gs.runs.checkpoint import save_checkpoint

left = int(sys.argv[2])

def dies_at_last(call):
    def counted(*arguments, **options):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        return call(*arguments, **options)
    return counted

for module, name in ((os, "mkdir"), (os, "rename"), (os, "fsync"), (os, "unlink"), (os, "rmdir")):
    setattr(module, name, dies_at_last(getattr(module, name)))
shutil._use_fd_functions = False
save_checkpoint(Path(sys.argv[1]), 200, {"means": torch.full((4,), 2.5)}, {"value": 2.5})
"""


@pytest.mark.slow
def test_a_program_killed_at_any_moment_of_saving_a_step_again_leaves_that_step(tmp_path: Path) -> None:
    ends = []
    for moment in range(40):
        folder = tmp_path / str(moment)
        for step in (100, 200):
            save(folder, step, float(step))
        done = subprocess.run([sys.executable, "-c", KILL, str(folder), str(moment)], check=False)
        latest = latest_checkpoint(folder)
        assert load_checkpoint(latest).step == 200, moment
        ends.append(value_of(latest))
        # The next save puts things in order.
        save(folder, 300, 300.0)
        assert sorted(path.name for path in folder.iterdir()) == ["step_000200", "step_000300"]
        if done.returncode == 0:
            break
    else:
        raise AssertionError("the program was killed every time")
    # Killed early the old state stands, killed late the new one.
    assert ends == sorted(ends, reverse=True)
    assert {200.0, 2.5} == set(ends)
    assert len(ends) > 8


@pytest.mark.parametrize("left", [".aside-step_000200", ".aside-old-step_000200"])
def test_a_whole_checkpoint_left_aside_is_found_and_put_back(tmp_path: Path, left: str) -> None:
    for step in (100, 200):
        save(tmp_path, step, float(step))
    (tmp_path / "step_000200").rename(tmp_path / left)
    assert [load_checkpoint(path).step for path in list_checkpoints(tmp_path)] == [100, 200]
    assert value_of(latest_checkpoint(tmp_path)) == 200.0
    assert value_of(checkpoint_at(tmp_path, 200)) == 200.0
    # Reading moves nothing: another program may be about to.
    assert (tmp_path / left).exists()
    save(tmp_path, 300, 300.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_000200", "step_000300"]
    assert value_of(tmp_path / "step_000200") == 200.0


def test_of_two_states_of_a_step_the_newer_is_taken(tmp_path: Path) -> None:
    save(tmp_path / "run", 200, 1.0).rename(tmp_path / "run" / ".aside-old-step_000200")
    save(tmp_path / "other", 200, 2.0).rename(tmp_path / "run" / ".aside-step_000200")
    assert value_of(latest_checkpoint(tmp_path / "run")) == 2.0


def test_half_of_a_checkpoint_and_what_was_being_removed_are_not_found(tmp_path: Path) -> None:
    save(tmp_path, 100, 100.0)
    for name in (".aside-step_000200", ".aside-gone-step_000300"):
        shutil.copytree(tmp_path / "step_000100", tmp_path / name)
    (tmp_path / ".aside-step_000200" / "tensors.safetensors").write_bytes(b"half")
    assert latest_checkpoint(tmp_path) == tmp_path / "step_000100"
    save(tmp_path, 150, 150.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_000100", "step_000150"]


@pytest.mark.parametrize("failing", [1, 2])
@pytest.mark.parametrize("error", [StoppedAtOnce(), OSError(errno.EIO, "Input/output error")], ids=["ctrl-c", "disk"])
def test_a_move_that_fails_leaves_the_step_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int, error: BaseException
) -> None:
    save(tmp_path, 200, 1.0)
    rename, calls = os.rename, []

    def counted(*arguments: Path) -> None:
        calls.append(arguments)
        if len(calls) == failing:
            raise error
        rename(*arguments)

    monkeypatch.setattr(os, "rename", counted)
    with pytest.raises((StoppedAtOnce, UserError)):
        save(tmp_path, 200, 2.0)
    assert [path.name for path in tmp_path.iterdir()] == ["step_000200"]
    assert value_of(tmp_path / "step_000200") == 1.0


def test_a_state_that_is_on_the_disk_is_not_written_again(tmp_path: Path) -> None:
    save(tmp_path, 100, 100.0)
    path = save(tmp_path, 200, 200.0)
    before = {file: file.stat().st_ino for file in path.iterdir()}
    assert save(tmp_path, 200, 200.0) == path
    assert {file: file.stat().st_ino for file in path.iterdir()} == before
    # Other settings, or a damaged file, are written.
    save_checkpoint(tmp_path, 200, {"means": torch.full((4,), 200.0)}, {"value": 200.0, "changes": [1]})
    assert load_checkpoint(path).meta["changes"] == [1]
    (path / "tensors.safetensors").write_bytes(b"")
    save(tmp_path, 200, 200.0)
    assert value_of(path) == 200.0


def test_all_earlier_checkpoints_can_be_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        save(tmp_path, step, float(step), keep=None)
    assert [load_checkpoint(path).step for path in list_checkpoints(tmp_path)] == [1, 2, 3, 4]
    with pytest.raises(UserError, match=r"no checkpoint of step 7 in .*: there are 1, 2, 3, 4"):
        checkpoint_at(tmp_path, 7)
