"""Kept renders of truth are the renders, within their memory, and change no score."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sdi_gs.toybox import metrics
from sdi_gs.toybox.captions import ToyboxPrompt
from sdi_gs.toybox.classes import COLOURS
from sdi_gs.toybox.objects import canonical_object
from sdi_gs.toybox.truth import held_out_cameras, render_truth, truth_draws
from sdi_gs.toybox.truth_renders import TruthRenders
from sdi_gs.toybox.truth_score import score_against_truth

CAMERAS = held_out_cameras(16)
DRAWS = truth_draws("car", "red", 3)


def test_they_are_the_renders_of_each_object_and_are_made_once() -> None:
    renders = TruthRenders(CAMERAS)
    views = renders.views(DRAWS)
    for k, item in enumerate(DRAWS):
        alone = render_truth([item], CAMERAS)
        assert torch.equal(views.rgb[k], alone.rgb)
        assert torch.equal(views.alpha[k], alone.alpha)
    assert renders.views(DRAWS).rgb is views.rgb


def test_silhouettes_serve_every_colour() -> None:
    renders = TruthRenders(CAMERAS)
    masks = renders.silhouettes(DRAWS)
    assert torch.equal(masks, metrics.silhouette(renders.views(DRAWS).alpha))
    assert renders.silhouettes(truth_draws("car", "blue", 3)) is masks


def test_every_colour_is_rendered_in_order() -> None:
    views = TruthRenders(CAMERAS).in_every_colour(DRAWS[0])
    for rgb, colour in zip(views.rgb, COLOURS, strict=True):
        assert torch.equal(rgb, render_truth([replace(DRAWS[0], colour=colour)], CAMERAS).rgb)


def test_the_sides_around_a_view_have_its_elevation_and_begin_half_a_step_from_the_front() -> None:
    rgb, words = TruthRenders(CAMERAS).from_all_sides(DRAWS[0])
    assert rgb.shape == (24, 24, 16, 16, 3)
    assert [word.count("front view") for word in words] == [6] * 24
    ring = [v for v, elevation in enumerate(CAMERAS.elevation_deg.tolist()) if elevation == 13.0]
    torch.testing.assert_close(rgb[ring[0]], rgb[ring[5]], atol=1e-4, rtol=0.0)
    assert (rgb[0] - rgb[ring[0]]).abs().max() > 0.1


def test_the_least_recently_used_are_dropped_beyond_the_memory_allowed() -> None:
    one = 24 * 16 * 16 * 4 * 4
    renders = TruthRenders(CAMERAS, most_bytes=2 * one)
    first, second, third = DRAWS
    kept = renders.views([first]).rgb
    renders.views([second])
    assert renders.views([first]).rgb is kept
    renders.views([third])
    assert renders.views([first]).rgb is kept
    renders.views([second])
    renders.views([third])
    assert renders.views([first]).rgb is not kept


def test_what_is_larger_than_the_memory_allowed_is_still_returned() -> None:
    renders = TruthRenders(CAMERAS, most_bytes=1)
    views = renders.views(DRAWS)
    assert torch.equal(views.rgb[1], render_truth([DRAWS[1]], CAMERAS).rgb)
    assert renders.views(DRAWS).rgb is views.rgb


def test_a_score_is_the_same_with_kept_renders_and_the_floor_is_left_out_on_request() -> None:
    renders, prompt = TruthRenders(CAMERAS), ToyboxPrompt(class_name="car", colour="red")
    for class_name in ("car", "house", "car"):
        images = render_truth([canonical_object(class_name, "red")], CAMERAS)
        fresh = score_against_truth(images.rgb, images.alpha, CAMERAS, prompt, 3, 1)
        kept = score_against_truth(images.rgb, images.alpha, CAMERAS, prompt, 3, 1, renders=renders)
        assert kept == fresh
        bare = score_against_truth(images.rgb, images.alpha, CAMERAS, prompt, 3, 0, renders=renders)
        assert bare == replace(fresh, iou_wrong_class=None, wrong_class=None, num_wrong_class_draws=0)


def test_renders_of_other_views_are_refused() -> None:
    images = render_truth([DRAWS[0]], CAMERAS)
    for other in (
        held_out_cameras(32),
        CAMERAS.rows(slice(0, 12)),
        replace(CAMERAS, world_from_camera=CAMERAS.world_from_camera.roll(1, 0)),
    ):
        with pytest.raises(ValueError, match="other views"):
            score_against_truth(
                images.rgb,
                images.alpha,
                CAMERAS,
                ToyboxPrompt(class_name="car"),
                renders=TruthRenders(other),
            )
