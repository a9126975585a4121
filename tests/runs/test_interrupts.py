"""Ctrl-C, once and twice."""

from __future__ import annotations

import signal
import threading

import pytest

from sdi_gs.runs.interrupts import Interrupts, StoppedAtOnce


def test_the_first_ctrl_c_only_asks(capfd: pytest.CaptureFixture[str]) -> None:
    with Interrupts("saving first") as interrupts:
        assert not interrupts.requested
        signal.raise_signal(signal.SIGINT)
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


def test_afterwards_ctrl_c_is_what_it_was() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interrupts("saving first"):
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before
    with pytest.raises(StoppedAtOnce), Interrupts("saving first"):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before


def test_in_another_thread_it_does_nothing() -> None:
    requested: list[bool] = []

    def work() -> None:
        with Interrupts("saving first") as interrupts:
            requested.append(interrupts.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert requested == [False]
