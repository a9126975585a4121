"""Run folders on their way between machines that share none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from command_line import files_in
from small_runs import crashed_run, whole_run

from sdi_gs.batch.collecting import Files, changed_files, write_files
from sdi_gs.errors import UserError
from sdi_gs.runs.writer_lock import LOCK


def test_a_run_arrives_whole_and_only_changes_are_sent_again(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    crashed_run(there, 5)
    sent = changed_files(there, {})
    write_files(here, sent)
    assert files_in(here) == files_in(there)
    assert changed_files(there, sent.known).contents == {}
    (there / "steps.jsonl").write_bytes(b"x")
    assert list(changed_files(there, sent.known).contents) == ["steps.jsonl"]


def test_what_the_sender_no_longer_has_goes_and_the_lock_stays(tmp_path: Path) -> None:
    there, here = whole_run(tmp_path / "there").path, tmp_path / "here"
    old = changed_files(there, {})
    first = {"checkpoints/step_000001/a.json": b"1", "previews/x.png": b"2"}
    write_files(here, Files(names=tuple(first), contents=first))
    (here / LOCK).touch()
    write_files(here, old)
    assert set(files_in(here)) == {*files_in(there), LOCK}
    assert not (here / "checkpoints/step_000001").exists()


def test_a_checkpoint_is_in_its_place_only_when_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = {f"checkpoints/step_000001/{name}": b"1" for name in ("a", "b")}
    seen: list[list[str]] = []
    replace = os.replace

    def watched(source: Path, target: Path) -> None:
        replace(source, target)
        seen.append([path.name for path in (tmp_path / "run/checkpoints").glob("step_*")])

    monkeypatch.setattr(os, "replace", watched)
    write_files(tmp_path / "run", Files(names=tuple(sent), contents=sent))
    assert seen == [[], []]
    assert len(list((tmp_path / "run/checkpoints/step_000001").iterdir())) == 2


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x"])
def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="leads out of its run folder"):
        write_files(tmp_path / "run", Files(names=(name,), contents={name: b""}))
    assert not (tmp_path / "x").exists()
