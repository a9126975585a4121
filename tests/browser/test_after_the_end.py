"""The page of a run that has ended and is kept open, on a narrow screen: what cannot act is off, training goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sdi_gs.viewer import labels

if TYPE_CHECKING:
    from headless_page import Server, ViewerPage
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.slow]

OPTIONS = [
    *("--preset", "smoke", "--prompt", "a blue robot", "--device", "cpu", "--steps", "4"),
    *("--gaussians.num-initial", "400", "--ideal-prior.renders-per-view", "8"),
    *("--ideal-prior.unconditional-renders", "16", "--outputs.turntable-frames", "2", "--outputs.preview-every", "0"),
]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    from headless_page import Server

    arguments = ["train", *OPTIONS, "--output-dir", "run", "--viewer", "--viewer-port", "0", "--viewer-keep-open"]
    server = Server(arguments, folder=tmp_path)
    yield server
    server.close()


@pytest.fixture
def narrow(browser: Browser) -> Iterator[ViewerPage]:
    from headless_page import ViewerPage

    with browser.new_context(viewport={"width": 420, "height": 800}) as context:
        yield ViewerPage(context.new_page())


def test_a_narrow_page_of_an_ended_run_offers_more_steps(server: Server, narrow: ViewerPage) -> None:
    narrow.open(server.address)
    narrow.until(lambda: "finished" in narrow.text(), "the run ends")
    narrow.until(lambda: narrow.button(labels.PAUSE).is_disabled(), "the controls are off")
    for label in (labels.RESUME, labels.STEP_ONCE, labels.STOP_AND_SAVE, labels.APPLY):
        assert narrow.button(label).is_disabled(), label
    assert labels.ENDED_NOTE in narrow.text()
    # All of the panel's width is on the screen.
    box = narrow.button(labels.TRAIN_ON).bounding_box()
    assert box is not None and box["x"] >= 0.0 and box["x"] + box["width"] <= 420.0
    narrow.write(labels.MORE_STEPS, "3")
    narrow.press(labels.TRAIN_ON)
    narrow.until(lambda: "step 7 of 7" in narrow.text(), "more steps are trained")
    narrow.until(lambda: "finished" in narrow.text(), "it ends again")
    assert narrow.faults == []
