"""What a person sees of a batch: the live table, plain lines, and the status of its journal."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from batches import batch_of, fail, finish, leave_pictures, start
from rich.console import Console

from sdi_gs.batch.display import PlainLines, batch_display, duration, line_of
from sdi_gs.batch.engine import EngineEvent, EngineNote, RowProgress, WorkerLost, WorkerReady
from sdi_gs.batch.journal import RowEvent
from sdi_gs.batch.page import write_page
from sdi_gs.batch.ranking import ranking_named
from sdi_gs.batch.state import BatchState
from sdi_gs.batch.status import status_json, status_lines
from sdi_gs.batch.worker_board import WorkerBoard

JUDGE = ranking_named("judge")


def events_of(state: BatchState) -> list[EngineEvent]:
    """Return two workers with a row each, one of them on a card."""
    keys = [known.row.key for known in state.rows]
    return [
        WorkerReady(worker="w0", machine="box", device="cpu"),
        WorkerReady(worker="w1", machine="box", device="cuda:0"),
        RowEvent(event="started", key=keys[0], worker="w0", step=0, steps=100),
        RowEvent(event="started", key=keys[1], worker="w1", step=0, steps=100),
        RowProgress(key=keys[1], worker="w1", step=40, steps=100, seconds=9, steps_per_second=4.0, gpu_mib=2048.0),
    ]


def test_the_table_shows_every_worker_with_its_row_rate_memory_and_time_left() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=110, height=30, color_system=None)
    state = batch_of("a blue robot", "a [bold]red[/bold] mug\x1b[2J", "a tree")
    finish(state, 2, seconds=60.0)
    start(state, 0)
    start(state, 1)
    with batch_display(console) as display:
        for event in events_of(state):
            display.observe(event, state)
            # Every event may be the one that is drawn.
            display._pace._next = 0.0  # pyright: ignore[reportAttributeAccessIssue]
        display.observe(None, state)
    text = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    last = text[text.rindex("worker") :]
    assert "w0 box cpu" in last
    [card] = [line for line in last.splitlines() if "w1 box cuda:0" in line]
    assert "a [bold]red[/bold] mug\\x1b[2J (seed 0)" in card
    assert "40/100" in card
    assert "4.0" in card
    assert "2.0 GiB" in card
    assert "15 s" in card
    assert "3 runs: 2 running, 1 finished, about 60 s left" in last


def test_a_table_of_many_workers_fits_the_terminal() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=20, color_system=None)
    state = batch_of("a blue robot")
    with batch_display(console) as display:
        for number in range(256):
            display.observe(WorkerReady(worker=f"w{number}", machine="box", device="cpu"), state)
        display._pace._next = 0.0  # pyright: ignore[reportAttributeAccessIssue]
        display.observe(None, state)
    text = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    assert "and 243 more workers" in text


def test_without_a_terminal_rows_that_end_have_a_line_and_totals_come_now_and_then(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with batch_display(Console(file=io.StringIO(), force_terminal=False)) as display:
        assert isinstance(display, PlainLines)
    clock = 0.0
    lines = PlainLines(clock=lambda: clock)
    state = batch_of("a blue robot", "a red mug", "a tree")
    start(state, 0)
    for event in events_of(state)[:3]:
        lines.observe(event, state)
    finish(state, 0, seconds=12.3)
    lines.observe(RowEvent(event="finished", key=state.rows[0].row.key, worker="w0"), state)
    fail(state, 1, "out of memory")
    lines.observe(RowEvent(event="failed", key=state.rows[1].row.key, worker="w1"), state)
    lines.observe(EngineNote(text="dashboard: http://127.0.0.1:8265"), state)
    lines.observe(WorkerLost(worker="w1", reason="killed by signal 9"), state)
    start(state, 2)
    lines.observe(WorkerReady(worker="w2", machine="box", device="cpu"), state)
    lines.observe(RowProgress(key=state.rows[2].row.key, worker="w2", step=7, steps=100, seconds=1), state)
    clock = 61.0
    lines.observe(None, state)
    lines.observe(None, state)
    assert capsys.readouterr().err.splitlines() == [
        "3 runs: 2 waiting, 1 running",
        '1/3  finished, 12 s  "a blue robot", seed 0',
        '2/3  failed  "a red mug", seed 0: out of memory',
        "dashboard: http://127.0.0.1:8265",
        "worker w1 is lost: killed by signal 9",
        "3 runs: 1 running, 1 finished, 1 failed, about 12 s left; at step 7/100",
    ]


def test_a_stopped_row_names_its_step() -> None:
    state = batch_of("a blue robot")
    event = RowEvent(event="stopped", key=state.rows[0].row.key, step=30, steps=100, seconds=4.0)
    state.apply(event)
    assert line_of(event, state, 0) == '0/1  stopped after step 30, 4.0 s  "a blue robot", seed 0'


def test_a_lost_row_has_a_line_of_its_own_and_is_in_the_status(tmp_path: Path) -> None:
    state = batch_of("a blue robot")
    event = RowEvent(event="lost", key=state.rows[0].row.key, step=30, steps=100, seconds=4.0, reason="killed")
    state.apply(event)
    assert line_of(event, state, 0) == '0/1  lost after step 30, 4.0 s  "a blue robot", seed 0'
    lines = list(status_lines(tmp_path, state, running=False, keep=0, ranking=JUDGE))
    assert lines[1] == 'lost: "a blue robot", seed 0, step 30 of 100, 4.0 s: killed'


def test_the_board_follows_rows_from_worker_to_worker() -> None:
    state, board = batch_of("a", "b"), WorkerBoard()
    for event in events_of(state):
        board.take(event)
    assert board.num_busy == 2
    assert board.seats[1].seconds_left == 15.0
    board.take(RowEvent(event="finished", key=state.rows[1].row.key, worker="w1"))
    assert (board.num_busy, board.seats[1].key, board.seats[1].place) == (1, None, "box cuda:0")
    board.take(WorkerLost(worker="w0", reason="gone"))
    board.take(RowEvent(event="lost", key=state.rows[0].row.key, worker="w0"))
    assert [seat.worker for seat in board.seats] == ["w1"]


def test_times_are_short() -> None:
    assert [duration(value) for value in (0.04, 9.94, 9.96, 99.4, 100, 5999, 36000)] == [
        "0.0 s",
        "9.9 s",
        "10 s",
        "99 s",
        "2 min",
        "1.7 h",
        "10.0 h",
    ]


def test_status_lists_what_runs_what_failed_and_what_to_do(tmp_path: Path) -> None:
    state = batch_of("a blue robot", "a red mug", "a tree", "a house")
    finish(state, 0, judge_class=1.0)
    start(state, 1, step=40)
    fail(state, 2, "toybox does not know the word")
    lines = list(status_lines(tmp_path, state, running=False, keep=1, ranking=JUDGE))
    assert re.match(r"prompts.txt, begun \d{4}-\d\d-\d\d \d\d:\d\d UTC: 4 runs: ", lines[0])
    assert lines[0].endswith("4 runs: 1 waiting, 1 running, 1 finished, 1 failed")
    assert lines[1] == 'running: "a red mug", seed 0, step 40 of 100, box cpu'
    assert lines[2] == 'failed: "a tree", seed 0: toybox does not know the word'
    assert lines[3] == f"best, judge 1.000: {state.rows[0].row.folder(tmp_path)}"
    assert "the same command again makes what is left, and --retry-failed" in lines[-1]
    leave_pictures(tmp_path, state, 0)
    page = write_page(tmp_path, state)
    lines = list(status_lines(tmp_path, state, running=True, keep=0, ranking=JUDGE))
    assert f"all runs with their pictures: {page}" in lines
    assert "works on this batch now" in lines[-1]


def test_status_lists_some_of_many_and_json_all(tmp_path: Path) -> None:
    state = batch_of(*(f"a robot {number}" for number in range(30)))
    for index in range(30):
        fail(state, index, "no")
    lines = list(status_lines(tmp_path, state, running=False, keep=0, ranking=JUDGE))
    assert sum(line.startswith("failed:") for line in lines) == 20
    assert "and 10 more failed; --json lists all" in lines
    values = status_json(tmp_path, state, running=False, keep=1, ranking=JUDGE)
    assert len(values["rows"]) == 30
    assert values["counts"] == {"waiting": 0, "running": 0, "finished": 0, "failed": 30, "stopped": 0, "lost": 0}
    assert values["rows"][0] | {"reason": "no", "best": False, "status": "failed"} == values["rows"][0]
