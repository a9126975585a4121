"""A scene that is right but turned: its turn is found and undone; what is wrong stays wrong."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from sdi_gs.cameras import CameraBatch, orbit_cameras
from sdi_gs.contracts import RenderOutput
from sdi_gs.toybox.captions import ToyboxPrompt
from sdi_gs.toybox.classes import ClassName
from sdi_gs.toybox.objects import PlacedObject, canonical_object
from sdi_gs.toybox.truth import held_out_cameras, render_truth, truth_draws
from sdi_gs.toybox.truth_renders import TruthRenders
from sdi_gs.toybox.truth_score import TruthScore, score_against_truth
from sdi_gs.toybox.truth_yaw import COARSE_STEP_DEG, FINE_STEPS_DEG, MOST_YAW_DEG, turned

CAMERAS = held_out_cameras(32)
RENDERS = TruthRenders(CAMERAS)
NUM_DRAWS = 4


def seen(item: PlacedObject, cameras: CameraBatch) -> RenderOutput:
    render = render_truth([item], cameras)
    return RenderOutput(rgb=render.rgb, alpha=render.alpha)


def score_turned(item: PlacedObject, yaw_deg: float, prompt: ToyboxPrompt | None = None) -> TruthScore:
    """Score an object that is turned together with its light."""

    def render(cameras: CameraBatch) -> RenderOutput:
        return seen(item, turned(cameras, -yaw_deg))

    views = render(CAMERAS)
    prompt = prompt or ToyboxPrompt(class_name=item.class_name, colour=item.colour)
    return score_against_truth(views.rgb, views.alpha, CAMERAS, prompt, NUM_DRAWS, 0, render=render, renders=RENDERS)


@pytest.mark.parametrize("yaw_deg", [-20.0, 6.0, 40.0])
@pytest.mark.parametrize("class_name", ["chair", "robot"])
def test_a_turned_member_is_turned_back(class_name: ClassName, yaw_deg: float) -> None:
    score = score_turned(truth_draws(class_name, "green", NUM_DRAWS)[1], yaw_deg)
    assert score.yaw_deg == pytest.approx(yaw_deg, abs=0.6)
    assert score.psnr_free is not None and score.iou_free is not None
    assert score.psnr_free > score.psnr_best + 5.0
    assert score.psnr_free > 28.0
    assert score.iou_free > 0.97 > score.iou_best
    assert score.detail > 0.8


def test_a_member_as_it_should_be_is_not_turned() -> None:
    score = score_turned(truth_draws("car", "red", NUM_DRAWS)[0], 0.0)
    assert (score.yaw_deg, score.psnr_free, score.iou_free) == (0.0, score.psnr_best, score.iou_best)


@pytest.mark.parametrize("class_name", ["ball", "donut", "mushroom"])
def test_a_round_object_gains_nothing(class_name: ClassName) -> None:
    score = score_turned(truth_draws(class_name, "blue", NUM_DRAWS)[2], 0.0)
    assert (score.yaw_deg, score.psnr_free, score.iou_free) == (0.0, score.psnr_best, score.iou_best)


def test_an_object_turned_around_stays_wrong() -> None:
    score = score_turned(truth_draws("car", "red", NUM_DRAWS)[0], 90.0)
    assert score.psnr_free is not None and score.yaw_deg is not None
    assert abs(score.yaw_deg) <= MOST_YAW_DEG
    assert score.psnr_free < 20.0


def test_another_class_gains_little_by_turning() -> None:
    score = score_turned(canonical_object("house", "blue"), 0.0, ToyboxPrompt(class_name="robot", colour="blue"))
    assert score.psnr_free is not None and score.iou_free is not None
    assert score.psnr_best <= score.psnr_free < score.psnr_best + 0.5
    assert score.iou_best <= score.iou_free < score.iou_best + 0.05
    assert score.detail < 0.1


def test_images_alone_have_no_scores_free_of_yaw() -> None:
    item = truth_draws("chair", "green", NUM_DRAWS)[1]
    views = seen(item, CAMERAS)
    prompt = ToyboxPrompt(class_name="chair", colour="green")
    of_images = score_against_truth(views.rgb, views.alpha, CAMERAS, prompt, NUM_DRAWS, 0)
    assert of_images.psnr_free is of_images.iou_free is of_images.yaw_deg is None
    of_scene = score_turned(item, 0.0)
    assert replace(of_scene, psnr_free=None, iou_free=None, yaw_deg=None) == of_images


def test_the_scene_is_rendered_at_few_yaws() -> None:
    asked: list[float] = []

    def render(cameras: CameraBatch) -> RenderOutput:
        asked.append(round(float(cameras.azimuth_deg[0] - CAMERAS.azimuth_deg[0]), 3))
        return seen(truth_draws("car", "red", 1)[0], cameras)

    views = render(CAMERAS)
    prompt = ToyboxPrompt(class_name="car", colour="red")
    score_against_truth(views.rgb, views.alpha, CAMERAS, prompt, 1, 0, render=render, renders=RENDERS)
    grid = np.arange(-45.0, 46.0, COARSE_STEP_DEG)
    assert len(grid) == 11
    azimuths = {(yaw + 180.0) % 360.0 - 180.0 for yaw in asked}
    assert azimuths >= set(grid.tolist())
    assert len(asked) == 11 + 2 * len(FINE_STEPS_DEG)


def test_turned_cameras_are_those_of_a_turned_orbit() -> None:
    angle = math.radians(25.0)
    turn = np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
    found = turned(CAMERAS, 25.0)
    np.testing.assert_allclose(
        found.world_from_camera[:, :3, 3].numpy(), CAMERAS.world_from_camera[:, :3, 3].numpy() @ turn.T, atol=1e-6
    )
    orbit = orbit_cameras(
        CAMERAS.azimuth_deg + 25.0,
        CAMERAS.elevation_deg,
        torch.full((24,), 3.3),
        torch.full((24,), 40.0),
        width=32,
        height=32,
    )
    torch.testing.assert_close(found.world_from_camera, orbit.world_from_camera, atol=2e-6, rtol=0.0)
    assert found.view_words() == orbit.view_words()
