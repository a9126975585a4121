"""Who makes which row when, without processes and clocks."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from sdi_gs.batch.engine import WorkerLost, WorkerReady
from sdi_gs.batch.journal import EventName, RowEvent
from sdi_gs.batch.rows import new_row
from sdi_gs.batch.scheduler import WORKER_DEATHS, Assign, Command, Record, Restart, Retire, Scheduler, StopRow
from sdi_gs.batch.state import RowState


def scheduler_of(num_rows: int, *, attempts: int = 3, max_failures: int | None = None) -> Scheduler:
    rows = [new_row(index=i, line=i + 1, prompt="p", seed=i) for i in range(num_rows)]
    return Scheduler([RowState(row=row) for row in rows], attempts=attempts, max_failures=max_failures)


def ready(name: str) -> WorkerReady:
    return WorkerReady(worker=name, machine="host", device="cpu")


def event(name: EventName, assigned: Assign) -> RowEvent:
    return RowEvent(event=name, key=assigned.key, worker=assigned.worker, time="T")


def lost(name: str) -> WorkerLost:
    return WorkerLost(worker=name, reason="killed by signal 9")


def assigned(commands: Iterable[Command]) -> Assign:
    [found] = [command for command in commands if isinstance(command, Assign)]
    return found


def names(commands: Iterable[Command]) -> list[str]:
    return [type(command).__name__ for command in commands]


def test_rows_go_out_in_order_and_a_worker_ends_with_the_last_row() -> None:
    scheduler = scheduler_of(2)
    first = assigned(scheduler.on_ready(ready("a")))
    done = scheduler.on_row(event("finished", first))
    second = assigned(done)
    assert names(done) == ["Record", "Assign"]
    assert (first.attempt, second.attempt, first.key != second.key) == (1, 1, True)
    assert scheduler.on_row(event("finished", second))[1:] == [Retire(worker="a")]
    assert scheduler.is_done
    assert scheduler.finished == 2


def test_an_idle_worker_waits_while_a_row_may_come_back_and_then_gets_it() -> None:
    scheduler = scheduler_of(1)
    first = assigned(scheduler.on_ready(ready("a")))
    assert scheduler.on_ready(ready("b")) == []
    commands = scheduler.on_lost(lost("a"), time="T")
    assert names(commands) == ["Record", "Restart", "Assign"]
    again = assigned(commands)
    assert (again.key, again.worker, again.attempt) == (first.key, "b", 2)
    done = scheduler.on_row(event("finished", again))
    assert done[1:] == [Retire(worker="b")]
    # The restarted worker comes too late and may go at once.
    assert scheduler.on_ready(ready("a")) == [Retire(worker="a")]


def test_what_a_lost_worker_reports_later_is_dropped() -> None:
    scheduler = scheduler_of(1)
    first = assigned(scheduler.on_ready(ready("a")))
    scheduler.on_ready(ready("b"))
    scheduler.on_lost(lost("a"), time="T")
    assert scheduler.on_row(event("finished", first)) == []
    assert scheduler.finished == 0


def test_a_row_that_ends_its_workers_fails_after_its_attempts_and_the_others_are_made() -> None:
    scheduler = scheduler_of(2, attempts=2)
    row = assigned(scheduler.on_ready(ready("a")))
    scheduler.on_lost(lost("a"), time="T")
    again = assigned(scheduler.on_ready(ready("a")))
    assert (again.key, again.attempt) == (row.key, 2)
    commands = scheduler.on_lost(lost("a"), time="T")
    events = [command.event.event for command in commands if isinstance(command, Record)]
    assert events == ["lost", "failed"]
    assert scheduler.failed == 1
    assert assigned(scheduler.on_ready(ready("a"))).key != row.key


def test_a_worker_that_dies_again_and_again_is_given_up() -> None:
    scheduler = scheduler_of(5, attempts=100)
    scheduler.expect("a")
    for _ in range(WORKER_DEATHS - 1):
        assert scheduler.on_lost(lost("a"), time="T") == [Restart(worker="a")]
        assert scheduler.has_hope
    assert scheduler.on_lost(lost("a"), time="T") == []
    assert scheduler.given_up == {"a": "killed by signal 9"}
    assert not scheduler.has_hope
    assert not scheduler.is_done
    # One that joins later makes the rows.
    assert names(scheduler.on_ready(ready("b"))) == ["Assign"]


def test_a_worker_whose_machine_cannot_do_it_is_not_started_again() -> None:
    scheduler = scheduler_of(2)
    scheduler.expect("a")
    refused = WorkerLost(worker="a", reason="node n does not see OUT", is_final=True)
    assert scheduler.on_lost(refused, time="T") == []
    assert not scheduler.has_hope


def test_finishing_a_row_forgives_earlier_deaths() -> None:
    scheduler = scheduler_of(9, attempts=100)
    for _ in range(WORKER_DEATHS):
        scheduler.on_row(event("finished", assigned(scheduler.on_ready(ready("a")))))
        assert Restart(worker="a") in scheduler.on_lost(lost("a"), time="T")


def test_stopping_saves_the_running_rows_and_hands_out_none() -> None:
    scheduler = scheduler_of(3)
    row = assigned(scheduler.on_ready(ready("a")))
    assert scheduler.stop() == [StopRow(worker="a")]
    assert scheduler.stop() == []
    assert scheduler.on_ready(ready("b")) == [Retire(worker="b")]
    assert not scheduler.is_done
    assert scheduler.on_row(event("stopped", row))[1:] == [Retire(worker="a")]
    assert scheduler.is_done
    assert scheduler.num_waiting == 2


def test_a_worker_lost_while_the_batch_stops_is_not_started_again() -> None:
    scheduler = scheduler_of(3)
    assigned(scheduler.on_ready(ready("a")))
    scheduler.stop()
    assert names(scheduler.on_lost(lost("a"), time="T")) == ["Record"]
    assert scheduler.is_done


def test_too_many_failures_stop_the_batch() -> None:
    scheduler = scheduler_of(9, max_failures=2)
    a, b = assigned(scheduler.on_ready(ready("a"))), assigned(scheduler.on_ready(ready("b")))
    a = assigned(scheduler.on_row(event("failed", a)))
    assert scheduler.on_row(event("failed", b))[1:] == [StopRow(worker="a"), Retire(worker="b")]
    assert scheduler.on_row(event("stopped", a))[1:] == [Retire(worker="a")]


def test_a_row_that_its_worker_stopped_by_itself_goes_on_at_another() -> None:
    scheduler = scheduler_of(1)
    row = assigned(scheduler.on_ready(ready("a")))
    commands = scheduler.on_row(event("stopped", row))
    assert names(commands) == ["Record"]
    assert scheduler.on_lost(lost("a"), time="T") == [Restart(worker="a")]
    assert assigned(scheduler.on_ready(ready("a"))).key == row.key


@pytest.mark.parametrize("seed", range(5))
def test_with_random_deaths_and_failures_every_row_ends_exactly_once(seed: int) -> None:
    rng = random.Random(seed)
    scheduler = scheduler_of(200, attempts=10_000)
    running: dict[str, Assign] = {}
    ended: list[str] = []
    pending = [ready(f"w{i}") for i in range(8)]

    def take(commands: Iterable[Command]) -> None:
        for command in commands:
            match command:
                case Assign():
                    assert command.worker not in running
                    assert command.key not in {item.key for item in running.values()}
                    running[command.worker] = command
                case Restart():
                    pending.append(ready(command.worker))
                case Record(event=RowEvent(event="finished" | "failed", key=key)):
                    ended.append(key)
                case _:
                    pass

    while not scheduler.is_done:
        choices = [*running]
        if pending and (not choices or rng.random() < 0.3):
            take(scheduler.on_ready(pending.pop()))
            continue
        row = running.pop(rng.choice(choices))
        draw = rng.random()
        if draw < 0.1:
            take(scheduler.on_lost(lost(row.worker), time="T"))
        else:
            take(scheduler.on_row(event("failed" if draw < 0.2 else "finished", row)))
    assert sorted(ended) == sorted(set(ended))
    assert len(ended) == 200
    assert scheduler.finished + scheduler.failed == 200
