"""The page of a field, which a browser cannot draw: live and finished."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from sdi_gs.runs.loading import load
from sdi_gs.runs.saving import save_state
from sdi_gs.viewer import labels
from sdi_gs.viewer.server import FinishedViewer
from sdi_gs.viewer.steering import LABELS

Browse = Callable[..., Any]
Wait = Callable[..., Any]

SPLATS_ONLY = {labels.SPLAT_SCALE, labels.CROP, labels.SHOW_CAMERAS, labels.DOWNLOAD_PLY, labels.DOWNLOAD_HTML}


@pytest.fixture
def finished(live_field: Any) -> Iterator[FinishedViewer]:
    """The page of a run that was saved before its first step."""
    save_state(live_field.trainer, live_field.folder)
    with FinishedViewer(load(live_field.path), port=0, device=torch.device("cpu")) as viewer:
        yield viewer


def pictures(browser: Any) -> list[dict[str, Any]]:
    """The renders that a client was sent."""
    return [message for message in browser.of_kind("BackgroundImageMessage") if message["format"] == "jpeg"]


def controls(browser: Any) -> dict[str, dict[str, Any]]:
    """What the page offers, by label."""
    return {m["props"]["label"]: m["props"] | {"value": m.get("value")} for m in browser.messages if _has_label(m)}


def _has_label(message: dict[str, Any]) -> bool:
    return message["type"].startswith("Gui") and message.get("props", {}).get("label") is not None


def test_a_field_that_trains_is_rendered_from_the_start(live_field: Any, browsers: Browse, wait_until: Wait) -> None:
    browser = browsers(live_field.port)
    wait_until(lambda: pictures(browser))
    assert live_field.trainer.step == 0
    assert browser.of_kind("GaussianSplatsMessage") == []
    assert labels.NO_SPLATS_NOTE in browser.texts()
    assert labels.SPLATS_NOTE not in browser.texts()
    wait_until(lambda: "a field, no splats" in browser.texts())
    assert browser.of_kind("NotificationShowMessage") == []


@pytest.mark.slow
def test_the_render_of_a_field_follows_the_run(live_field: Any, browsers: Browse, wait_until: Wait) -> None:
    browser = browsers(live_field.port)
    live_field.start()
    wait_until(lambda: len(pictures(browser)) >= 3)
    assert live_field.trainer.step > 0
    assert "Gaussians" not in browser.texts()


def test_nothing_that_only_splats_have_is_offered(live_field: Any, browsers: Browse, wait_until: Wait) -> None:
    browser = browsers(live_field.port)
    wait_until(lambda: {labels.PICTURE, labels.MODE, labels.BACKGROUND} <= set(controls(browser)))
    wait_until(lambda: browser.of_kind("ReplayDoneMessage"))
    shown = controls(browser)
    assert SPLATS_ONLY.isdisjoint(shown)
    assert {labels.PAUSE, LABELS["prompt"], labels.SCREENSHOT} <= set(shown)
    assert (list(shown[labels.PICTURE]["options"]), shown[labels.PICTURE]["value"]) == (["render"], "render")
    assert shown[labels.MODE]["visible"]
    visible = {m["props"]["title"]: m["props"]["visible"] for m in browser.messages if "title" in m.get("props", {})}
    assert (visible[labels.PLOT_LOSS], visible[labels.PLOT_COUNT]) == (True, False)


def test_a_client_that_asks_for_splats_nevertheless_keeps_the_render(
    live_field: Any, browsers: Browse, wait_until: Wait
) -> None:
    browser = browsers(live_field.port)
    wait_until(lambda: pictures(browser))
    count = len(pictures(browser))
    browser.set_value(labels.PICTURE, "splats")
    wait_until(lambda: len(pictures(browser)) > count)
    assert [view.picture for view in live_field.viewer.worker._views.values()] == ["render"]


@pytest.mark.parametrize("mode", ["depth", "normal", "alpha"])
def test_every_mode_of_a_finished_field_sends_a_picture(
    finished: FinishedViewer, browsers: Browse, wait_until: Wait, mode: str
) -> None:
    browser = browsers(finished.port)
    wait_until(lambda: pictures(browser))
    assert labels.NO_SPLATS_NOTE in browser.texts()
    count = len(pictures(browser))
    browser.set_value(labels.MODE, mode)
    wait_until(lambda: len(pictures(browser)) > count)
    wait_until(lambda: "a field, no splats" in browser.texts())
    assert SPLATS_ONLY.isdisjoint(controls(browser))
    assert browser.of_kind("NotificationShowMessage") == []
