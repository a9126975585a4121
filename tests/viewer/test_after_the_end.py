"""The page of a run that has ended: what cannot act is off and says why, and more steps can be asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sdi_gs.runs.loop import train_on
from sdi_gs.viewer import labels
from sdi_gs.viewer.page_server import LAST_MESSAGE_SECONDS
from sdi_gs.viewer.server import LiveViewer

PATIENCE = 300.0
OF_TRAINING = (labels.PAUSE, labels.RESUME, labels.STEP_ONCE, labels.STOP_AND_SAVE, labels.APPLY, labels.TRAINING_SHARE)


def state_of(browser: Any, label: str, name: str) -> Any:
    """The last value of a property of a control, such as ``disabled``."""
    uuid, value = browser.control(label), None
    for message in list(browser.messages):
        if message.get("uuid") == uuid:
            found = message.get("updates", {}) | message.get("props", {})
            value = found.get(name, value)
    return value


class Ended:
    """A run that has ended while its viewer stays open, as ``--viewer-keep-open`` has it."""

    def __init__(self, live_run: Any) -> None:
        self.closed, self.more = False, -1
        self._is_waiting = threading.Event()
        self._viewer: LiveViewer = live_run.viewer
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()
        # What is pressed before is dropped.
        assert self._is_waiting.wait(PATIENCE)

    def _wait(self) -> None:
        self.more = self._viewer.keep_open(self._is_closed)

    def _is_closed(self) -> bool:
        self._is_waiting.set()
        return self.closed

    def close(self) -> None:
        self.closed = True
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


def test_what_cannot_act_is_off_and_says_why(
    live_run: Any, browsers: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    browser = browsers(live_run.port)
    assert not any(state_of(browser, label, "disabled") for label in OF_TRAINING)
    assert state_of(browser, labels.TRAIN_ON, "visible") is False
    ended = Ended(live_run)
    try:
        wait_until(lambda: all(state_of(browser, label, "disabled") for label in OF_TRAINING))
        wait_until(lambda: state_of(browser, labels.TRAIN_ON, "visible"))
        wait_until(lambda: labels.ENDED_NOTE in browser.texts())
        # What does not need a run goes on.
        assert not state_of(browser, labels.DOWNLOAD_PLY, "disabled")
        # A button that a page pressed all the same does nothing.
        browser.press(labels.STOP_AND_SAVE)
        assert not live_run.viewer.stop_requested
    finally:
        ended.close()
    assert ended.more == 0


def test_more_steps_are_trained_and_the_controls_are_on_again(
    live_run: Any, browsers: Callable[..., Any], wait_until: Callable[..., Any], tmp_path: Path
) -> None:
    browser, trainer = browsers(live_run.port), live_run.trainer
    ended = Ended(live_run)
    wait_until(lambda: state_of(browser, labels.TRAIN_ON, "visible"))
    # A client may send any number.
    for sent, taken in ((10**12, 1_000_000), (3, 3)):
        browser.set_value(labels.MORE_STEPS, sent)
        browser.press(labels.TRAIN_ON)
        wait_until(lambda taken=taken, ended=ended: ended.more == taken)
        if sent != 3:
            ended = Ended(live_run)
    wait_until(lambda: state_of(browser, labels.PAUSE, "disabled") is False)
    assert state_of(browser, labels.TRAIN_ON, "visible") is False
    before, planned = trainer.step, trainer.config.steps
    summary = train_on(trainer, live_run.folder, 3, observers=[live_run.viewer.observe], should_stop=lambda: False)
    assert summary["step"] == trainer.step == before + 3
    assert trainer.config.steps == planned
    assert live_run.folder.splats.is_file()


def test_a_page_whose_program_ends_offers_nothing(
    live_run: Any, browsers: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    browser = browsers(live_run.port)
    # All of the page is there before the run ends.
    assert not any(state_of(browser, label, "disabled") for label in (*OF_TRAINING, labels.TRAIN_ON))
    # The server's thread does not get to run for longer than the last message's usual time.
    live_run.viewer.server.get_event_loop().call_soon_threadsafe(time.sleep, 3 * LAST_MESSAGE_SECONDS)
    live_run.viewer.end_run("training has ended; the run is in x")
    wait_until(lambda: all(state_of(browser, label, "disabled") for label in OF_TRAINING))
    wait_until(lambda: labels.ENDED_NOTE in browser.texts())
    assert state_of(browser, labels.TRAIN_ON, "visible") is False
