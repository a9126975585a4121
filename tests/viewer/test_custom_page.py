"""The page of a run that trains a renderer of one's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sdi_gs.viewer import labels

Browse = Callable[..., Any]
Wait = Callable[..., Any]


def pictures(browser: Any) -> list[dict[str, Any]]:
    """The renders that a client was sent."""
    return [message for message in browser.of_kind("BackgroundImageMessage") if message["format"] == "jpeg"]


@pytest.mark.slow
@pytest.mark.parametrize("mode", labels.MODES)
def test_every_mode_of_a_scene_of_ones_own_follows_its_training(
    live_wall: Any, browsers: Browse, wait_until: Wait, mode: str
) -> None:
    browser = browsers(live_wall.port)
    live_wall.start()
    # The denoised target is that of a finished step.
    wait_until(lambda: (shown := live_wall.viewer.worker.current) is not None and shown.views is not None)
    browser.set_value(labels.MODE, mode)
    count = len(pictures(browser))
    wait_until(lambda: len(pictures(browser)) > count + 2)
    wait_until(lambda: "a Wall, no splats" in browser.texts())
    assert labels.NO_SPLATS_NOTE in browser.texts()
    assert browser.of_kind("GaussianSplatsMessage") == []
    assert browser.of_kind("NotificationShowMessage") == []


def test_its_settings_are_steered(live_wall: Any, browsers: Browse, wait_until: Wait) -> None:
    browser = browsers(live_wall.port)
    live_wall.start()
    browser.set_value("Learning-rate scale", 3.0)
    browser.press(labels.APPLY)
    wait_until(lambda: live_wall.trainer.config.learning_rate_scale == 3.0)
    assert live_wall.trainer.scene.optimizer.param_groups[0]["lr"] == pytest.approx(0.03)
