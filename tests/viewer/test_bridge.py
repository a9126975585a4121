"""What passes between the page's threads and the training thread."""

from __future__ import annotations

import threading
from collections.abc import Callable

from sdi_gs.representations.gaussians import Gaussians
from sdi_gs.viewer.bridge import MAX_COMMANDS, Bridge, ChangeSettings, Pause, Resume, Snapshot, StepOnce


def snapshots(ball: Callable[..., Gaussians]) -> Callable[[int], Callable[[], Snapshot]]:
    cloud = ball()
    return lambda step: lambda: Snapshot(step=step, representation=cloud)


def test_commands_come_out_once_and_in_the_order_they_came_in() -> None:
    bridge = Bridge()
    assert bridge.take_commands() == []
    given = [Pause(), ChangeSettings({"prompt": "a red car"}), StepOnce(), Resume()]
    for command in given:
        assert bridge.post(command)
    assert bridge.take_commands() == given
    assert bridge.take_commands() == []


def test_commands_of_many_threads_are_all_there() -> None:
    bridge, count = Bridge(), 10

    def post(thread: int) -> None:
        for number in range(count):
            bridge.post(ChangeSettings({"thread": thread, "number": number}))

    threads = [threading.Thread(target=post, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = [command.values for command in bridge.take_commands() if isinstance(command, ChangeSettings)]
    for thread in range(8):
        assert [values["number"] for values in taken if values["thread"] == thread] == list(range(count))


def test_a_flood_of_commands_is_cut_off() -> None:
    bridge = Bridge()
    assert [bridge.post(Pause()) for _ in range(MAX_COMMANDS + 2)] == [True] * MAX_COMMANDS + [False] * 2
    assert len(bridge.take_commands()) == MAX_COMMANDS
    assert bridge.post(Resume())


def test_waiting_for_a_command_ends_when_one_comes() -> None:
    bridge = Bridge()
    assert not bridge.wait_for_command(0.0)
    timer = threading.Timer(0.05, lambda: bridge.post(Resume()))
    timer.start()
    assert bridge.wait_for_command(300.0)
    timer.join()
    # It is still there to be taken.
    assert bridge.take_commands() == [Resume()]


def test_without_a_client_no_snapshot_is_even_made(ball: Callable[..., Gaussians]) -> None:
    bridge = Bridge()
    made = []

    def make() -> Snapshot:
        made.append(1)
        return Snapshot(step=1, representation=ball())

    assert not bridge.publish(make)
    assert made == []
    bridge.set_watchers(1)
    assert bridge.publish(make)
    assert made == [1]
    # Nobody took it: the next step does not pay for another.
    assert not bridge.publish(make)
    assert made == [1]


def test_a_snapshot_is_handed_over_once_and_then_the_next_one_is_wanted(ball: Callable[..., Gaussians]) -> None:
    bridge, of_step = Bridge(), snapshots(ball)
    bridge.set_watchers(2)
    bridge.publish(of_step(1))
    taken = bridge.take_snapshot()
    assert taken is not None
    assert taken.step == 1
    assert bridge.take_snapshot() is None
    assert bridge.publish(of_step(2))


def test_the_last_state_of_a_run_replaces_one_that_nobody_took(ball: Callable[..., Gaussians]) -> None:
    bridge, of_step = Bridge(), snapshots(ball)
    bridge.publish(of_step(1), always=True)
    bridge.publish(of_step(9), always=True)
    taken = bridge.take_snapshot()
    assert taken is not None
    assert taken.step == 9


def test_news_wake_who_waits_for_them(ball: Callable[..., Gaussians]) -> None:
    bridge, of_step = Bridge(), snapshots(ball)
    assert not bridge.wait_for_work(0.0)
    bridge.wake()
    assert bridge.wait_for_work(0.0)
    assert not bridge.wait_for_work(0.0)
    timer = threading.Timer(0.05, lambda: bridge.publish(of_step(1), always=True))
    timer.start()
    assert bridge.wait_for_work(300.0)
    timer.join()
