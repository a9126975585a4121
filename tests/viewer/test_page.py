"""The page's words and numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sdi_gs.viewer.bridge import Status
from sdi_gs.viewer.history import MAX_ROWS, History
from sdi_gs.viewer.page import plain, preview_note, status_line
from sdi_gs.viewer.splat_stream import SplatArrays


def arrays(shown: int, **counts: int) -> SplatArrays:
    left_out = {"thinned": 0, "cropped": 0, "outliers": 0} | counts
    return SplatArrays(
        centers=np.zeros((shown, 3), np.float32),
        covariances=np.zeros((shown, 3, 3), np.float32),
        rgbs=np.zeros((shown, 3), np.uint8),
        opacities=np.zeros((shown, 1), np.uint8),
        factor=1.0,
        presentable=shown + sum(left_out.values()),
        **left_out,
    )


def test_the_status_begins_with_phase_and_step() -> None:
    status = Status(
        phase="training",
        step=12,
        num_steps=300,
        timestep=640,
        loss=0.0123,
        contents="6,000 Gaussians",
        steps_per_second=5.25,
    )
    line = "**training** · step 12 of 300 · t 640 · loss 0.0123 · 6,000 Gaussians · 5.25 steps/s"
    assert status_line(status) == line
    assert status_line(replace(status, num_rounds=12)) == line
    assert status_line(replace(status, num_rounds=3)) == line.replace("300 · ", "300 · round 3 · ")
    assert status_line(Status(phase="starting", num_steps=300)) == "**starting** · step 0 of 300"
    assert status_line(Status(phase="viewing", contents="7 Gaussians")) == "7 Gaussians"
    assert status_line(Status(phase="viewing", contents="a field, no splats")) == "a field, no splats"


def test_the_preview_says_what_it_leaves_out() -> None:
    assert preview_note(None) == ""
    assert preview_note(arrays(10)) == "preview: 10 of 10 splats"
    note = preview_note(arrays(200_000, thinned=50_000, outliers=1))
    assert (
        note == "preview: 200,000 of 250,001 splats (without 50,000 thinned out, of least contribution, 1 too far away)"
    )


@pytest.mark.parametrize("text", ["**bold** <script>x</script> [a](http://b)", "a_b", "$x$ `code` # title"])
def test_a_prompt_cannot_be_markup(text: str) -> None:
    shown = plain(text)
    assert shown.replace("\\", "") == text
    for index, letter in enumerate(shown):
        if letter in "*<>[]()_`#$":
            assert shown[index - 1] == "\\"


def test_the_history_of_a_long_run_stays_short_and_spans_it() -> None:
    history = History()
    for step in range(1, 100_001):
        history.add(step, 1.0 / step, 500, 10, 2.0)
    columns = history.columns()
    assert columns.shape[0] == 5
    assert MAX_ROWS // 2 - 1 <= columns.shape[1] <= MAX_ROWS
    assert columns[0, 0] == 1
    assert columns[0, -1] > 99_000
    gaps = np.diff(columns[0])
    assert gaps.min() == gaps.max()


def test_plots_get_no_number_that_is_not_finite() -> None:
    history = History()
    history.add(1, float("nan"), 500, 10, float("inf"))
    assert np.isfinite(history.columns()).all()
    assert History().columns().shape == (5, 0)
