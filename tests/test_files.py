"""Files are replaced atomically or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sdi_gs.errors import UserError
from sdi_gs.files import (
    disk_errors,
    first_free_number,
    make_new_folder,
    make_numbered_folder,
    refuse_existing,
    replacement_for,
    write_atomically,
)


def test_chunks_are_joined_and_nothing_else_is_left_in_the_folder(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.bin", b"one ", memoryview(b"two"))
    assert (tmp_path / "a.bin").read_bytes() == b"one two"
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_an_existing_file_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    with pytest.raises(UserError, match="never overwritten"):
        write_atomically(target, b"new")
    assert target.read_bytes() == b"old"
    write_atomically(target, b"new", overwrite=True)
    assert target.read_bytes() == b"new"


def test_a_dangling_link_counts_as_existing(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="never overwritten"):
        refuse_existing(tmp_path / "link")


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_failure_midway_leaves_the_old_state(tmp_path: Path, overwrite: bool) -> None:
    target = tmp_path / "a.bin"
    if overwrite:
        target.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), replacement_for(target, overwrite=overwrite) as aside:
        aside.write_bytes(b"half")
        raise KeyboardInterrupt
    assert [path.read_bytes() for path in tmp_path.iterdir()] == ([b"old"] if overwrite else [])


def test_a_full_disk_is_one_line_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"no space left.*a\.bin.*free some") as caught:
        write_atomically(tmp_path / "a.bin", b"data")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_really_full_device_is_recognised() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    with (
        pytest.raises(UserError, match="no space left"),
        disk_errors(Path("/dev/full")),
        open("/dev/full", "wb", buffering=0) as file,
    ):
        file.write(b"x")


def test_a_missing_parent_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot write .*absent/a\.bin: No such file"):
        write_atomically(tmp_path / "absent" / "a.bin", b"x")


def test_the_lowest_free_number_is_taken() -> None:
    assert first_free_number(lambda number: False) == 1
    assert first_free_number(lambda number: number in (1, 2, 4)) == 3


def test_numbered_folders_take_no_name_that_is_taken(tmp_path: Path) -> None:
    stem = tmp_path / "new" / "a.stem"
    assert make_numbered_folder(stem) == tmp_path / "new/a.stem-1"
    (tmp_path / "new/a.stem-2").write_text("a file")
    (tmp_path / "new/a.stem-3").symlink_to("nowhere")
    assert make_numbered_folder(stem) == tmp_path / "new/a.stem-4"
    assert (tmp_path / "new/a.stem-4").is_dir()


def test_a_numbered_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        make_numbered_folder(tmp_path / "file" / "stem")


def test_an_empty_folder_is_taken_for_a_new_one(tmp_path: Path) -> None:
    mounted, used = tmp_path / "mounted", tmp_path / "used"
    for folder in (mounted, used):
        folder.mkdir()
    (used / ".hidden").touch()
    make_new_folder(mounted)
    make_new_folder(tmp_path / "a/b")
    assert mounted.is_dir() and (tmp_path / "a/b").is_dir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for taken in (used, used / ".hidden", tmp_path / "link"):
        with pytest.raises(UserError, match=f"{taken} exists and is never overwritten: choose another name"):
            make_new_folder(taken)
    assert [path.name for path in used.iterdir()] == [".hidden"]
