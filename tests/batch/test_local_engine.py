"""Workers as processes: deaths, stops and the bytes of what they make."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import held_worker
import pytest
from small_batches import PROMPTS, driven, job_of, opened, rows_of
from small_runs import BYTES_THAT_REPEAT, config, whole_run

from sdi_gs.batch import local_engine
from sdi_gs.batch.engine import EngineEvent, WorkerLost
from sdi_gs.batch.journal import JOURNAL, RowEvent
from sdi_gs.batch.local_engine import LocalEngine, LocalWorker, local_workers, reason_of
from sdi_gs.batch.messages import line_of, message_of
from sdi_gs.batch.state import BatchState
from sdi_gs.batch.threads import thread_environment, threads_per_worker
from sdi_gs.settings.outputs import OutputConfig

TWO = local_workers(["cpu"], 2)


class KillOnce:
    """Kills the worker of the row that is held at its checkpoint, as the system does where memory runs out."""

    def __init__(self, engine: LocalEngine, mark: Path) -> None:
        self.engine = engine
        self.mark = mark
        self.killed: str | None = None

    def observe(self, event: EngineEvent | None, state: BatchState) -> None:
        if isinstance(event, RowEvent) and event.event == "checkpoint" and event.worker and self.killed is None:
            # Written before the held row's event was sent.
            if self.mark.exists() and self.mark.read_text() == event.key:
                self.killed = event.key
                os.kill(self.engine.pids()[event.worker], signal.SIGKILL)


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let workers hold the first row that has a checkpoint there; its key is then in this file."""
    mark = tmp_path / "held"
    monkeypatch.setattr(local_engine, "PROGRAM", held_worker.PROGRAM)
    for name, value in held_worker.held_environment(mark).items():
        monkeypatch.setenv(name, value)
    return mark


def assert_like_single_runs(out: Path, single: Path, prompts: tuple[str, ...] = PROMPTS) -> None:
    for row in rows_of(*prompts):
        run = whole_run(single / row.key, config(prompt=row.prompt))
        for name in BYTES_THAT_REPEAT:
            assert (row.folder(out) / name).read_bytes() == (run.path / name).read_bytes(), name


def events_of(out: Path) -> list[tuple[str, str]]:
    lines = [json.loads(line) for line in (out / JOURNAL).read_text().splitlines()]
    return [(line["event"], line["key"]) for line in lines if line["event"] not in ("batch", "row")]


def test_a_killed_worker_costs_no_row_and_no_bit(tmp_path: Path, mark: Path) -> None:
    out = tmp_path / "batch"
    engine = LocalEngine(TWO, threads=1, out=out)
    killer = KillOnce(engine, mark)
    with opened(out, rows_of(*PROMPTS)) as batch:
        scheduler = driven(engine, batch, out, observers=[killer])
        assert (scheduler.finished, scheduler.is_done) == (3, True)
    assert ("lost", killer.killed) in events_of(out)
    assert Counter(events_of(out))["finished", str(killer.killed)] == 1
    assert sum(event == "finished" for event, _ in events_of(out)) == 3
    assert_like_single_runs(out, tmp_path / "single")


@pytest.mark.slow
def test_a_stopped_batch_goes_on_to_the_same_bytes(tmp_path: Path, mark: Path) -> None:
    out, rows = tmp_path / "batch", rows_of(*PROMPTS[:2])
    with opened(out, rows) as batch:
        driven(
            LocalEngine(TWO[:1], threads=1, out=out),
            batch,
            out,
            should_stop=lambda: any(state.status == "running" for state in batch.state.rows),
        )
        assert [state.status for state in batch.state.rows] == ["stopped", "waiting"]
    # None is held from here on.
    mark.touch()
    with opened(out, rows) as batch:
        assert [state.row.key for state in batch.todo] == [row.key for row in rows]
        assert driven(LocalEngine(TWO[:1], threads=1, out=out), batch, out).finished == 2
    assert_like_single_runs(out, tmp_path / "single", PROMPTS[:2])


def test_a_worker_that_cannot_start_is_reported_with_its_reason(tmp_path: Path) -> None:
    engine = LocalEngine([LocalWorker(name="w", device="nonsense")], threads=1, out=tmp_path)
    engine.start()
    try:
        events: list[EngineEvent] = []
        while not events:
            events = engine.poll(1.0)
    finally:
        engine.close()
    [event] = events
    assert isinstance(event, WorkerLost)
    assert "device 'nonsense' means nothing" in event.reason
    assert "Traceback" in (tmp_path / "logs" / "w.log").read_text()


def test_a_worker_without_a_program_ends_by_itself() -> None:
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "sdi_gs.batch.worker_process", "--name", "w", "--device", "cpu"]
    command += ["--threads", "1", "--share", "1", "--events", str(writing)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(writing,)) as worker:
        os.close(writing)
        assert b"WorkerReady" in os.read(reading, 1 << 16)
        assert worker.stdin is not None
        worker.stdin.close()
        assert worker.wait(600) == 0
    os.close(reading)


def test_a_worker_that_gets_a_signal_saves_its_row_and_ends(tmp_path: Path) -> None:
    [row] = rows_of(PROMPTS[0])
    endless = config(steps=1_000_000, outputs=OutputConfig(preview_every=0, turntable_frames=0))
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "sdi_gs.batch.worker_process", "--name", "w", "--device", "cpu"]
    command += ["--threads", "1", "--share", "1", "--events", str(writing)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(writing,)) as worker, open(reading, "rb") as events:
        os.close(writing)
        assert worker.stdin is not None
        worker.stdin.write(line_of(job_of(row, tmp_path, base=endless)))
        worker.stdin.flush()
        while b'"event": "started"' not in events.readline():
            assert worker.poll() is None
        worker.terminate()
        # Its input is open: it has no other reason to end.
        assert worker.wait(600) == 0
        assert any(b'"event": "stopped"' in line for line in events)


def test_workers_share_devices_and_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    three = local_workers(["cuda:0", "cuda:1"], 3)
    assert [(worker.name, worker.device, worker.share) for worker in three] == [
        ("cuda-0-0", "cuda:0", 0.5),
        ("cuda-1-0", "cuda:1", 1.0),
        ("cuda-0-1", "cuda:0", 0.5),
    ]
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [threads_per_worker(count, cores=8) for count in (1, 3, 8, 9)] == [8, 2, 1, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert [threads_per_worker(count, cores=8) for count in (1, 8)] == [2, 1]
    assert thread_environment(2)["NUMBA_NUM_THREADS"] == "2"


def test_the_end_of_a_process_is_described() -> None:
    assert reason_of(-9) == "the worker was ended by SIGKILL (out of memory, or by hand)"
    assert reason_of(3) == "the worker ended with code 3"


def test_a_job_survives_the_way_to_a_process(tmp_path: Path) -> None:
    [row] = rows_of(PROMPTS[0])
    job = job_of(row, tmp_path)
    assert line_of(message_of(line_of(job))) == line_of(job)  # pyright: ignore[reportArgumentType]
