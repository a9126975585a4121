"""Rows, the journal and the state that it is replayed to."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sdi_gs.batch.journal import JOURNAL, BatchHeader, Journal, RowEvent
from sdi_gs.batch.rows import Row, new_row, row_from_json
from sdi_gs.batch.state import replay
from sdi_gs.errors import UserError

HEADER = BatchHeader(version="0.2.0", source="prompts.txt", settings={"steps": 20}, rows=3)
ROWS = [new_row(index=index, line=index + 1, prompt=f"a {word}", seed=0) for index, word in enumerate("abc")]


def write(out: Path, *events: RowEvent) -> Path:
    """Write a journal of three rows and these events."""
    out.mkdir(exist_ok=True)
    with Journal(out / JOURNAL) as journal:
        journal.append(HEADER, *ROWS)
        for event in events:
            journal.append(event)
    return out / JOURNAL


def test_a_key_names_prompt_seed_and_settings_and_nothing_else() -> None:
    row = new_row(index=0, line=1, prompt="a Blue robot!", seed=1, settings={"steps": 5, "guidance.noise": "random"})
    same = new_row(
        index=7, line=9, prompt="a Blue robot!", seed=1, name="r", settings=dict(reversed([*row.settings.items()]))
    )
    assert row.key == same.key
    assert row.key.startswith("a-blue-robot-")
    others = [("a blue robot!", 1, row.settings), (row.prompt, 2, row.settings), (row.prompt, 1, {"steps": 5})]
    keys = {new_row(index=0, line=1, prompt=p, seed=s, settings=own).key for p, s, own in others}
    assert len(keys | {row.key}) == 4


def test_a_row_survives_json() -> None:
    row = new_row(index=3, line=4, prompt="ein blauer Würfel \udc80", seed=9, name="n", settings={"steps": 5})
    assert row_from_json(json.loads(json.dumps(row.as_json()))) == row
    assert row.given == {"steps": 5, "prompt": row.prompt, "seed": 9}


def test_the_journal_has_the_documented_lines(tmp_path: Path) -> None:
    path = write(tmp_path, RowEvent(event="finished", key=ROWS[0].key, seconds=1.5, scores={"judge": 0.5}, time="T"))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0] == {
        **{"event": "batch", "time": HEADER.time, "version": "0.2.0", "source": "prompts.txt"},
        **{"settings": {"steps": 20}, "rows": 3},
    }
    row = {"event": "row", "key": ROWS[1].key, "index": 1, "line": 2, "prompt": "a b", "seed": 0, "name": ""}
    assert lines[2] == {**row, "settings": {}}
    assert lines[4] == {
        **{"event": "finished", "key": ROWS[0].key, "time": "T", "seconds": 1.5, "scores": {"judge": 0.5}}
    }


def test_every_status_and_the_latest_values_come_back(tmp_path: Path) -> None:
    a, b, c = (row.key for row in ROWS)
    write(
        tmp_path,
        RowEvent(event="started", key=a, worker="w0", machine="m", device="cpu", attempt=1, step=0, steps=20),
        RowEvent(event="checkpoint", key=a, step=10, seconds=2.0),
        RowEvent(event="lost", key=a, seconds=3.0, reason="killed"),
        RowEvent(event="started", key=a, worker="w1", machine="m2", device="cpu", attempt=2, step=10),
        RowEvent(event="finished", key=a, step=20, seconds=1.0, scores={"judge": 0.5}),
        RowEvent(event="started", key=b, attempt=1),
        RowEvent(event="failed", key=b, reason="no such word"),
        RowEvent(event="started", key=c, attempt=1),
        RowEvent(event="checkpoint", key=c, step=5, seconds=1.0),
    )
    state = replay(tmp_path)
    assert state.header == HEADER
    first = state[a]
    assert (first.status, first.attempts, first.step, first.steps, first.seconds) == ("finished", 2, 20, 20, 4.0)
    assert (first.worker, first.machine, first.scores, first.reason) == ("w1", "m2", {"judge": 0.5}, None)
    assert (state[b].status, state[b].reason) == ("failed", "no such word")
    assert (state[c].status, state[c].step) == ("running", 5)
    assert [item.row for item in state.rows] == ROWS
    assert (state.count("finished"), state.count("waiting")) == (1, 0)


def test_seconds_of_an_attempt_whose_end_nobody_wrote_count_up_to_its_last_event(tmp_path: Path) -> None:
    key = ROWS[0].key
    write(
        tmp_path,
        RowEvent(event="started", key=key),
        RowEvent(event="checkpoint", key=key, seconds=2.0),
        RowEvent(event="started", key=key),
        RowEvent(event="stopped", key=key, seconds=0.5),
    )
    assert (replay(tmp_path)[key].seconds, replay(tmp_path)[key].attempts) == (2.5, 2)


def test_a_torn_last_line_is_ignored_and_cut_off_before_the_next(tmp_path: Path) -> None:
    path = write(tmp_path, RowEvent(event="started", key=ROWS[0].key))
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"event":"fin')
    assert replay(tmp_path)[ROWS[0].key].status == "running"
    with Journal(path) as journal:
        journal.append(RowEvent(event="failed", key=ROWS[0].key, reason="x"))
    assert path.read_bytes().startswith(whole)
    assert replay(tmp_path)[ROWS[0].key].status == "failed"


def test_a_torn_first_line_leaves_an_empty_journal(tmp_path: Path) -> None:
    path = tmp_path / JOURNAL
    path.write_bytes(b'{"event":"ba' + b"x" * 200_000)
    with Journal(path):
        assert path.read_bytes() == b""


@pytest.mark.parametrize("line", ["[1]", "{", '{"event": "finished"}', '{"event": "finished", "key": "nobody"}'])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    path = write(tmp_path)
    path.write_text(path.read_text() + line + "\n" + '{"event": "later", "key": "x"}\n')
    with pytest.raises(UserError, match="line 5 is no event"):
        replay(tmp_path)


def test_events_and_fields_of_later_versions_are_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path)
    key = ROWS[0].key
    path.write_text(path.read_text() + f'{{"event": "x"}}\n{{"event": "failed", "key": "{key}", "colour": 1}}\n')
    assert replay(tmp_path)[key].status == "failed"


def test_a_folder_without_a_batch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no batch"):
        replay(tmp_path)
    (tmp_path / JOURNAL).touch()
    with pytest.raises(UserError, match="is empty"):
        replay(tmp_path)


def seconds_of(work: Callable[[], object]) -> float:
    """The processor's time, which other processes do not lengthen: the least of three times."""
    found = []
    for _ in range(3):
        started = time.process_time()
        work()
        found.append(time.process_time() - started)
    return min(found)


def test_ten_thousand_rows_replay_in_some_times_what_their_lines_take_to_be_read(tmp_path: Path) -> None:
    rows: list[Row] = [new_row(index=i, line=i + 1, prompt=f"a blue robot number {i}", seed=0) for i in range(10_000)]
    common = {"worker": "w0", "machine": "host", "device": "cpu", "attempt": 1, "steps": 1000}
    with Journal(tmp_path / JOURNAL) as journal:
        journal.append(HEADER, *rows)
        for name in ("started", "checkpoint", "finished"):
            journal.append(*(RowEvent(event=name, key=row.key, step=500, seconds=1.0, **common) for row in rows))
    lines = (tmp_path / JOURNAL).read_text().splitlines()
    # The bar is the issue's, two seconds, of a machine that reads the lines in a sixth of one.
    assert seconds_of(lambda: replay(tmp_path)) <= 12 * seconds_of(lambda: [json.loads(line) for line in lines])
    assert replay(tmp_path).count("finished") == 10_000


def test_reading_a_journal_needs_no_torch() -> None:
    code = "import sys, sdi_gs.batch.state; assert not {'torch', 'numpy', 'ray', 'rich'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_seconds_stay_where_a_later_attempt_finds_the_run_finished(tmp_path: Path) -> None:
    key = ROWS[0].key
    write(
        tmp_path,
        RowEvent(event="started", key=key, attempt=1),
        RowEvent(event="checkpoint", key=key, attempt=1, seconds=20.0),
        RowEvent(event="lost", key=key),
        RowEvent(event="finished", key=key, attempt=2, seconds=0.5),
    )
    assert (replay(tmp_path)[key].seconds, replay(tmp_path)[key].attempts) == (20.5, 2)
