"""A batch's folder: begun, gone on with, and refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_batches import opened, rows_of

from sdi_gs.batch.display import PlainLines
from sdi_gs.batch.journal import JOURNAL, BatchHeader, EventName, RowEvent
from sdi_gs.batch.opening import differing_settings, opened_batch
from sdi_gs.batch.rows import Row
from sdi_gs.errors import UserError
from sdi_gs.runs.writer_lock import LOCK

ROWS = rows_of("a", "b", "c", "d", "e")


def with_events(out: Path) -> None:
    """A batch whose rows are finished, failed, stopped, waiting and lost."""
    with opened(out, ROWS) as batch:
        names = ("finished", "failed", "stopped", None, "lost")
        pairs = zip(names, ROWS, strict=True)
        batch.journal.append(*(RowEvent(event=name, key=row.key) for name, row in pairs if name is not None))
    for row in ROWS[:1]:
        row.folder(out).mkdir(parents=True)
        (row.folder(out) / "summary.json").write_text("{}")


def keys(rows: list[Row]) -> list[str]:
    return [row.key for row in rows]


def test_half_done_rows_go_first_and_finished_ones_are_left_out(tmp_path: Path) -> None:
    with_events(tmp_path)
    with opened(tmp_path, ROWS) as batch:
        assert keys([state.row for state in batch.todo]) == keys([ROWS[2], ROWS[4], ROWS[3]])
        assert [state.row.key for state in batch.skipped] == [ROWS[1].key]
    with opened(tmp_path, ROWS, retry_failed=True) as batch:
        assert batch.todo[-1].row.key == ROWS[1].key


def test_a_finished_row_whose_result_was_removed_is_made_again(tmp_path: Path) -> None:
    with_events(tmp_path)
    (ROWS[0].folder(tmp_path) / "summary.json").unlink()
    with opened(tmp_path, ROWS) as batch:
        assert ROWS[0].key in {state.row.key for state in batch.todo}


def test_rows_that_are_new_in_the_list_are_added(tmp_path: Path) -> None:
    with opened(tmp_path, ROWS[:2]):
        pass
    with opened(tmp_path, rows_of("b", "z")) as batch:
        assert [state.row.prompt for state in batch.state.rows] == ["a", "b", "z"]
        assert [state.row.prompt for state in batch.todo] == ["b", "z"]
    assert (tmp_path / JOURNAL).read_text().count('"event": "row"') == 3


def test_another_batch_is_refused_with_the_settings_that_differ(tmp_path: Path) -> None:
    with opened(tmp_path, ROWS):
        pass
    header = BatchHeader(version="0", source="list.txt", settings={"steps": 8, "views_per_step": 1}, rows=5)
    with pytest.raises(UserError, match=r"holds another batch, with .*views_per_step 2, not 1") as caught:
        with opened_batch(tmp_path, header, ROWS):
            pass
    assert "more" in str(caught.value)


def test_settings_of_a_later_version_compare_by_their_defaults() -> None:
    assert differing_settings({}, {"extend": 0}) == []
    assert differing_settings({"extend": 1}, {}) == ["extend"]


def test_a_second_batch_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path, ROWS), pytest.raises(UserError, match="is being written by another process"):
        with opened(tmp_path, ROWS):
            pass
    with opened(tmp_path, ROWS):
        pass


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photo.png").touch()
    with pytest.raises(UserError, match="holds something else than a batch"):
        with opened(tmp_path, ROWS):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


def test_a_refusal_takes_back_a_batch_that_nothing_came_of(tmp_path: Path) -> None:
    for out in (tmp_path / "new", tmp_path):
        with pytest.raises(UserError, match="no cluster"), opened(out, ROWS):
            raise UserError("no cluster")
    assert [path.name for path in tmp_path.iterdir() if path.name != LOCK] == []
    # A worker has been started, or the batch was there before: it stays.
    with pytest.raises(UserError, match="no worker"), opened(tmp_path, ROWS):
        (tmp_path / "logs").mkdir()
        raise UserError("no worker is left")
    (tmp_path / "logs").rmdir()
    with pytest.raises(UserError, match="no cluster"), opened(tmp_path, ROWS):
        raise UserError("no cluster")
    assert (tmp_path / JOURNAL).is_file()


def test_a_batch_whose_beginning_was_cut_off_begins_anew(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_text('{"event": "ba')
    with opened(tmp_path, ROWS) as batch:
        assert len(batch.todo) == 5


def test_rows_that_are_made_again_wait_and_are_counted_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failed, removed, done = ROWS[:3]
    ends: list[tuple[Row, EventName]] = [(failed, "failed"), (removed, "finished"), (done, "finished")]
    with opened(tmp_path, ROWS[:3]) as batch:
        for row, event in ends:
            what = RowEvent(event=event, key=row.key, attempt=1, step=8, steps=8, seconds=2.0)
            batch.journal.append(what)
            batch.state.apply(what)
    done.folder(tmp_path).mkdir(parents=True)
    (done.folder(tmp_path) / "summary.json").touch()
    with opened(tmp_path, ROWS[:3], retry_failed=True) as batch:
        batch.begin()
        assert [known.status for known in batch.state.rows] == ["waiting", "waiting", "finished"]
        # The removed one is to be made whole; of the failed one the last checkpoint may be there.
        assert [known.step for known in batch.state.rows] == [8, 0, 8]
        lines = PlainLines(clock=lambda: 0.0)
        lines.observe(None, batch.state)
        assert "3 runs: 2 waiting, 1 finished, about" in capsys.readouterr().err
        for row in (failed, removed):
            again = RowEvent(event="finished", key=row.key, attempt=2, step=8, steps=8, seconds=2.0)
            batch.journal.append(again)
            batch.state.apply(again)
            lines.observe(again, batch.state)
        assert [line.split()[0] for line in capsys.readouterr().err.splitlines()] == ["2/3", "3/3"]
    with opened(tmp_path, ROWS[:3]) as batch:
        # Of results that are missing; nothing is failed any more.
        assert [known.row.key for known in batch.todo] == [failed.key, removed.key]
