"""Ctrl-C, once and twice, SIGTERM and SIGHUP."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sdi_gs.runs.console_observer import ConsoleObserver
from sdi_gs.runs.events import Saving
from sdi_gs.runs.interrupts import TERMINATING, Interrupts, StoppedAtOnce, terminating_like_ctrl_c

ALL = (signal.SIGINT, *TERMINATING)


@pytest.mark.parametrize("number", ALL)
def test_the_first_signal_only_asks(number: signal.Signals, capfd: pytest.CaptureFixture[str]) -> None:
    with Interrupts("saving first") as interrupts:
        assert not interrupts.requested
        signal.raise_signal(number)
        assert interrupts.requested
    assert capfd.readouterr().err == "\nsaving first\n"


def test_the_second_one_raises_and_a_third_one_does_not_disturb_the_cleaning_up() -> None:
    cleaned_up = False
    with pytest.raises(StoppedAtOnce), Interrupts("saving first"):
        signal.raise_signal(signal.SIGINT)
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)
            cleaned_up = True
    assert cleaned_up


@pytest.mark.parametrize("first", ALL)
@pytest.mark.parametrize("second", TERMINATING)
def test_one_stop_that_arrives_as_several_signals_is_one_stop(
    first: signal.Signals, second: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    with Interrupts("saving first") as interrupts:
        for number in (first, second, second):
            signal.raise_signal(number)
        assert interrupts.requested
    assert capfd.readouterr().err == "\nsaving first\n"


@pytest.mark.parametrize("first", TERMINATING)
def test_ctrl_c_after_another_signal_stops_at_once(first: signal.Signals) -> None:
    with pytest.raises(StoppedAtOnce), Interrupts("saving first"):
        signal.raise_signal(first)
        signal.raise_signal(signal.SIGINT)


def test_afterwards_every_signal_is_what_it_was() -> None:
    before = [signal.getsignal(number) for number in ALL]
    with Interrupts("saving first"):
        assert not set(before) & {signal.getsignal(number) for number in ALL}
    assert [signal.getsignal(number) for number in ALL] == before
    with pytest.raises(StoppedAtOnce), Interrupts("saving first"):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(number) for number in ALL] == before
    for number in TERMINATING:
        with pytest.raises(KeyboardInterrupt), terminating_like_ctrl_c():
            signal.raise_signal(number)
        assert [signal.getsignal(number) for number in ALL] == before


def test_a_run_started_with_nohup_goes_on_when_its_terminal_is_closed() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with terminating_like_ctrl_c(), Interrupts("saving first") as interrupts:
            signal.raise_signal(signal.SIGHUP)
            assert not interrupts.requested
    finally:
        signal.signal(signal.SIGHUP, before)


def test_in_another_thread_it_does_nothing() -> None:
    requested: list[bool] = []

    def work() -> None:
        with terminating_like_ctrl_c(), Interrupts("saving first") as interrupts:
            requested.append(interrupts.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert requested == [False]


@pytest.mark.parametrize("number", TERMINATING)
def test_other_work_is_cleaned_up_as_after_ctrl_c_and_not_disturbed_by_a_second_signal(number: signal.Signals) -> None:
    cleaned_up = False
    with pytest.raises(KeyboardInterrupt), terminating_like_ctrl_c():
        try:
            signal.raise_signal(number)
        finally:
            for again in TERMINATING:
                signal.raise_signal(again)
            cleaned_up = True
    assert cleaned_up


CLOSED_TERMINAL = """
import os, sys, time
from pathlib import Path
from sdi_gs.runs.interrupts import Interrupts
with Interrupts("saving first") as interrupts:
    print("ready", file=sys.stderr, flush=True)
    end = time.monotonic() + 600
    while not interrupts.requested and time.monotonic() < end:
        time.sleep(0.01)
    # The terminal is gone: without care each of these is an OSError (EIO).
    for stream in (sys.stderr, sys.stdout):
        print("saving and exporting", file=stream, flush=True)
    Path(sys.argv[1]).write_text(str(interrupts.requested))
"""


def test_work_is_saved_after_its_terminal_was_closed(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    saved = tmp_path / "saved"
    # The first terminal that a session opens is the one whose end it is told of.
    start = "import os, sys; os.close(os.open(os.ttyname(2), os.O_RDWR)); exec(sys.argv.pop(1))"
    command = [sys.executable, "-c", start, CLOSED_TERMINAL, str(saved)]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as process:
        os.close(theirs)
        assert b"ready" in os.read(ours, 100)
        os.close(ours)
        assert process.wait(600) == 0
    assert saved.read_text() == "True"


def test_a_line_that_cannot_be_printed_costs_the_run_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object, **__: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("sdi_gs.runs.console_observer.say", gone)
    with ConsoleObserver() as console:
        console(Saving(step=1))
