"""Sizes of renders from their timings."""

from __future__ import annotations

import pytest

from sdi_gs.viewer.resolution import LARGEST_SIDE, SMALLEST_SIDE, RenderSpeed, moving_seconds, rest_seconds


def test_sizes_follow_the_speed_and_the_aspect() -> None:
    speed = RenderSpeed(1e6)
    width, height = speed.size(canvas_height=1000, aspect=1.5, seconds=0.06)
    assert width * height == pytest.approx(60_000, rel=0.02)
    assert width / height == pytest.approx(1.5, rel=0.02)


def test_a_slow_render_lowers_the_next_one_and_a_fast_one_raises_it() -> None:
    speed = RenderSpeed(1e6)
    first = speed.size(canvas_height=1000, aspect=1.0, seconds=0.05)
    for _ in range(10):
        speed.learn(10_000, 0.1)
    slow = speed.size(canvas_height=1000, aspect=1.0, seconds=0.05)
    assert slow < first
    assert slow[0] * slow[1] == pytest.approx(5_000, rel=0.05)
    for _ in range(20):
        speed.learn(10_000, 0.001)
    assert speed.size(canvas_height=1000, aspect=1.0, seconds=0.05) > first


@pytest.mark.parametrize("aspect", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("rate", [1.0, 1e12])
def test_no_timing_leads_out_of_the_bounds(aspect: float, rate: float) -> None:
    width, height = RenderSpeed(rate).size(canvas_height=5000, aspect=aspect, seconds=0.1)
    assert min(width, height) >= SMALLEST_SIDE
    assert max(width, height) <= LARGEST_SIDE
    assert width / height == pytest.approx(aspect, rel=0.03)


def test_no_render_is_larger_than_the_canvas() -> None:
    assert RenderSpeed(1e12).size(canvas_height=40, aspect=2.0, seconds=1.0) == (80, 40)
    assert RenderSpeed(1.0).size(canvas_height=1, aspect=2.0, seconds=1.0) == (2, 1)


def test_a_larger_share_for_training_leaves_shorter_renders() -> None:
    assert moving_seconds(0.9) < moving_seconds(0.5)
    assert rest_seconds(0.95) < rest_seconds(0.5)
    # Ten frames a second of this length take what training leaves.
    assert 10.0 * moving_seconds(0.7) == pytest.approx(0.3)
