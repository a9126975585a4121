"""Truth scored against itself is perfect; what is wrong with images shows in the number that is about it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sdi_gs.cameras import wrap_degrees
from sdi_gs.errors import UserError
from sdi_gs.toybox import metrics
from sdi_gs.toybox.captions import ToyboxPrompt
from sdi_gs.toybox.classes import COLOURS, ClassName
from sdi_gs.toybox.objects import PlacedObject, canonical_object, sample_object
from sdi_gs.toybox.patches import draw_shades, render_patches
from sdi_gs.toybox.splits import split_seed
from sdi_gs.toybox.styles import STYLE_NAMES, STYLES, StyleName
from sdi_gs.toybox.truth import held_out_cameras, render_truth, truth_draws
from sdi_gs.toybox.truth_score import TruthScore, score_against_truth

CAMERAS = held_out_cameras(32)
NUM_DRAWS = 4
ROBOT = ToyboxPrompt(class_name="robot", colour="blue")


def score_of(item: PlacedObject, prompt: ToyboxPrompt) -> TruthScore:
    render = render_truth([item], CAMERAS)
    return score_against_truth(render.rgb, render.alpha, CAMERAS, prompt, NUM_DRAWS, 1)


def test_a_true_draw_scores_perfectly() -> None:
    score = score_of(truth_draws("robot", "blue", NUM_DRAWS)[2], ROBOT)
    assert score.psnr_best == pytest.approx(100.0)
    assert score.iou_best == 1.0
    assert score.sharpness_ratio == pytest.approx(1.0)
    assert score.saturation_error == pytest.approx(0.0, abs=1e-7)
    assert score.fog == 0.0
    assert score.view_accuracy == 1.0
    assert score.front_back_right is True
    assert score.colour_right and score.colour == "blue"
    assert (score.num_draws, score.num_wrong_class_draws) == (NUM_DRAWS, 1)
    assert score.psnr_canonical < 40.0 and score.iou_canonical < 1.0
    assert score.iou_wrong_class is not None
    assert score.iou_wrong_class < 0.85 and score.wrong_class != "robot"


def test_the_canonical_object_is_judged_apart_from_the_draws() -> None:
    score = score_of(canonical_object("robot", "blue"), ROBOT)
    assert score.psnr_canonical == pytest.approx(100.0)
    assert score.iou_canonical == 1.0
    assert score.psnr_best < 60.0


def test_an_unseen_member_scores_well_and_another_class_badly() -> None:
    member = score_of(sample_object("robot", "blue", split_seed("val", 0)), ROBOT)
    stranger = score_of(canonical_object("donut", "blue"), ROBOT)
    assert member.iou_best > 0.85 and member.psnr_best > 18.0
    assert stranger.iou_best < 0.6 and stranger.psnr_best < 15.0
    assert stranger.iou_wrong_class is not None
    assert stranger.iou_wrong_class > 0.8 and stranger.wrong_class == "donut"


def test_an_object_turned_around_has_its_front_behind() -> None:
    turned = replace(truth_draws("car", "red", NUM_DRAWS)[0], yaw_deg=180.0)
    score = score_of(turned, ToyboxPrompt(class_name="car", colour="red"))
    assert score.front_back_right is False
    assert score.view_accuracy is not None and score.view_accuracy < 0.7


def test_two_faces_are_not_a_front_and_a_back() -> None:
    render = render_truth([truth_draws("robot", "blue", NUM_DRAWS)[0]], CAMERAS)
    rgb, alpha = render.rgb.clone(), render.alpha.clone()
    # Show the view from across the front to every camera behind: the Janus failure.
    for v, azimuth in enumerate(CAMERAS.azimuth_deg.tolist()):
        if abs(wrap_degrees(azimuth)) > 135.0:
            across = (CAMERAS.azimuth_deg - (azimuth + 180.0)) % 360.0
            same_ring = CAMERAS.elevation_deg == CAMERAS.elevation_deg[v]
            twin = int(torch.nonzero((torch.minimum(across, 360.0 - across) < 1.0) & same_ring)[0])
            rgb[v], alpha[v] = render.rgb[twin], render.alpha[twin]
    score = score_against_truth(rgb, alpha, CAMERAS, ROBOT, NUM_DRAWS, 1)
    assert score.front_back_right is False


@pytest.mark.parametrize(("class_name", "has_views"), [("ball", False), ("cube", False), ("mug", True)])
def test_sides_are_judged_only_where_they_differ(class_name: ClassName, has_views: bool) -> None:
    score = score_of(canonical_object(class_name, "red"), ToyboxPrompt(class_name=class_name, colour="red"))
    assert (score.view_accuracy is not None) == has_views
    assert score.front_back_right is None


def test_the_wrong_colour_is_seen() -> None:
    score = score_of(canonical_object("chair", "green"), ToyboxPrompt(class_name="chair", colour="red"))
    assert not score.colour_right
    assert score.colour == "green"


def test_without_a_colour_in_the_prompt_the_seen_one_is_taken() -> None:
    item = truth_draws("chair", "purple", NUM_DRAWS)[1]
    score = score_of(item, ToyboxPrompt(class_name="chair"))
    assert score.colour_right and score.colour == "purple"
    assert score.psnr_best == pytest.approx(100.0)


@pytest.mark.slow
@pytest.mark.parametrize("class_name", ["snowman", "robot"])
def test_colour_survives_blur_and_paleness(class_name: ClassName) -> None:
    def blur(images: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(images.movedim(-1, 1), 5, 1, 2, count_include_pad=False).movedim(1, -1)

    cameras = held_out_cameras(48)
    for k, colour in enumerate(COLOURS):
        truth = render_truth([sample_object(class_name, colour, split_seed("val", k))], cameras)
        alpha = blur(truth.alpha)
        pale = blur(truth.rgb) + alpha * 0.1 * (1.0 - blur(truth.rgb))
        render = render_truth([canonical_object(class_name, name) for name in COLOURS], cameras)
        renders = dict(zip(COLOURS, render.rgb.unflatten(0, (len(COLOURS), -1)), strict=True))
        assert metrics.nearest_colour(pale, alpha, renders, render.alpha[: len(cameras)]) == colour


def test_blur_lowers_the_sharpness_ratio() -> None:
    truth = render_truth([truth_draws("robot", "blue", NUM_DRAWS)[0]], CAMERAS)
    blurred = F.avg_pool2d(truth.rgb.movedim(-1, 1), 3, 1, 1, count_include_pad=False).movedim(1, -1)
    assert score_against_truth(blurred, truth.alpha, CAMERAS, ROBOT, NUM_DRAWS, 1).sharpness_ratio < 0.4


def test_fog_and_saturation_are_noticed() -> None:
    render = render_truth([truth_draws("robot", "blue", NUM_DRAWS)[0]], CAMERAS)
    foggy = render.alpha.clamp_min(0.2)
    mean = render.rgb.mean(dim=-1, keepdim=True)
    vivid = (mean + 1.5 * (render.rgb - mean)).clamp(0.0, 1.0)
    score = score_against_truth(vivid, foggy, CAMERAS, ROBOT, NUM_DRAWS, 1)
    assert score.fog == pytest.approx(0.2, abs=1e-3)
    assert score.saturation_error > 0.05
    assert score.iou_best == 1.0


def test_json_has_the_keys_of_eval() -> None:
    keys = score_of(canonical_object("ball", "red"), ToyboxPrompt(class_name="ball")).as_json().keys()
    expected = "psnr_best iou_best psnr_canonical iou_canonical iou_wrong_class sharpness_ratio saturation_error"
    assert {*expected.split(), "view_accuracy", "fog", "front_back_right", "colour_right"} <= keys


def test_held_out_views_avoid_training_grids_and_borders_of_view_words() -> None:
    cameras = held_out_cameras(64)
    assert len(cameras) == 24
    assert (cameras.width, cameras.height) == (64, 64)
    assert (
        len({(a, e) for a, e in zip(cameras.azimuth_deg.tolist(), cameras.elevation_deg.tolist(), strict=True)}) == 24
    )
    assert -10.0 <= cameras.elevation_deg.min() and cameras.elevation_deg.max() <= 40.0
    for azimuth in cameras.azimuth_deg.tolist():
        assert min(azimuth % 15.0, 15.0 - azimuth % 15.0) >= 5.0
    assert set(cameras.view_words()) == {"front view", "side view", "back view"}


def test_truth_draws_are_fixed_nested_and_never_shared_with_the_prior() -> None:
    few, many = truth_draws("mug", "red", 5), truth_draws("mug", "red")
    assert many[:5] == few
    assert len(set(many)) == len(many) == 32
    assert canonical_object("mug", "red") not in many
    prior = {sample_object("mug", "red", split_seed("prior", index)) for index in range(100)}
    assert prior.isdisjoint(many)


def test_bad_input_is_refused() -> None:
    images, alpha = torch.ones(24, 32, 32, 3), torch.zeros(24, 32, 32, 1)
    with pytest.raises(UserError, match="name one of ball, cube"):
        score_against_truth(images, alpha, CAMERAS, ToyboxPrompt(colour="red"))
    with pytest.raises(ValueError, match="do not fit"):
        score_against_truth(images[:3], alpha, CAMERAS, ROBOT)
    with pytest.raises(ValueError, match="num_draws"):
        score_against_truth(images, alpha, CAMERAS, ROBOT, 0)


@pytest.mark.parametrize("style", STYLE_NAMES)
def test_truth_of_a_style_is_the_nearest_member(style: StyleName) -> None:
    item = canonical_object("chair", "yellow", style)
    prompt = ToyboxPrompt(class_name="chair", colour="yellow", style=style)
    views = render_patches([item] * len(CAMERAS), CAMERAS)
    member = score_against_truth(render_truth([item], CAMERAS).rgb, views.alpha, CAMERAS, prompt)
    assert member.psnr_best == member.psnr_canonical > 80.0
    assert member.detail > 0.999
    assert member.colour == "yellow" and member.num_draws == 1
    other = views.shaded(draw_shades(style, np.random.default_rng(77)))
    assert score_against_truth(other, views.alpha, CAMERAS, prompt).psnr_best > 80.0
    # The mean over all members is no member.
    assert score_against_truth(views.mean(), views.alpha, CAMERAS, prompt).psnr_best < 30.0


def test_a_member_of_one_shade_scores_well_but_its_missing_pattern_is_seen() -> None:
    prompt = ToyboxPrompt(class_name="chair", colour="yellow", style="patchwork")
    item = canonical_object("chair", "yellow", "patchwork")
    views = render_patches([item] * len(CAMERAS), CAMERAS)
    light = views.shaded(torch.ones(STYLES["patchwork"].num_cells, dtype=torch.bool))
    one_shade = score_against_truth(light, views.alpha, CAMERAS, prompt, 1, 0)
    plain = score_of(canonical_object("chair", "yellow"), prompt)
    member = score_of(item, prompt)
    assert one_shade.psnr_best > 80.0
    # It has no seams.
    assert 20.0 < plain.psnr_best < 35.0
    assert one_shade.patch_changes == plain.patch_changes == 0.0
    assert member.patch_changes == pytest.approx(0.5, abs=0.1)
    assert (
        score_of(canonical_object("ball", "red"), ToyboxPrompt(class_name="ball", colour="red")).patch_changes is None
    )


def test_a_pattern_that_differs_from_view_to_view_lacks_detail_inside() -> None:
    item = canonical_object("robot", "blue", "patchwork")
    prompt = ToyboxPrompt(class_name="robot", colour="blue", style="patchwork")
    views = render_patches([item] * len(CAMERAS), CAMERAS)
    members = torch.stack([draw_shades("patchwork", np.random.default_rng(v)) for v in range(len(CAMERAS))])
    torn = score_against_truth(views.shaded(members), views.alpha, CAMERAS, prompt, 1, 0)
    whole = score_against_truth(views.shaded(members[0]), views.alpha, CAMERAS, prompt, 1, 0)
    assert torn.detail_inside is not None and whole.detail_inside is not None
    assert torn.detail_inside < 0.5
    assert whole.detail_inside > 0.99
    assert torn.psnr_best < whole.psnr_best - 20.0
