"""Classes and their members: size, identity, fronts and validation."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch

from sdi_gs.cameras import CameraBatch
from sdi_gs.toybox.classes import CLASSES, COLOURS, PROPORTIONS, ClassName, class_rows
from sdi_gs.toybox.metrics import psnr, silhouette_iou
from sdi_gs.toybox.objects import (
    CLASSES_WITH_FRONT,
    HELD_OUT_PAIRS,
    SIDES_ALIKE,
    PlacedObject,
    canonical_object,
    sample_object,
    scene_primitives,
)
from sdi_gs.toybox.primitives import bounds, placed
from sdi_gs.toybox.renderer import render_scenes, signed_distance

CamerasAt = Callable[..., CameraBatch]

OBJECT_RADIUS = 0.95
"""Scene units: what the cameras of toybox, at a distance of 3.3, show with a margin."""


def extreme_members(class_name: ClassName) -> list[PlacedObject]:
    corners = itertools.product((0.0, 1.0), repeat=len(PROPORTIONS[class_name]))
    return [PlacedObject(class_name=class_name, colour="red", proportions=corner) for corner in corners]


def shell_points(radius: float) -> torch.Tensor:  # [N, 3]
    direction = np.random.default_rng(0).normal(size=(20_000, 3))
    return torch.from_numpy(radius * direction / np.linalg.norm(direction, axis=1, keepdims=True))


@pytest.mark.parametrize("class_name", CLASSES)
def test_no_member_reaches_beyond_the_object_radius(class_name: ClassName) -> None:
    points = shell_points(OBJECT_RADIUS)
    assert all(signed_distance((item,), points).min() > 0.0 for item in extreme_members(class_name))


@pytest.mark.parametrize("class_name", CLASSES)
def test_canonical_object_is_centred_and_large(class_name: ClassName) -> None:
    rows = scene_primitives((canonical_object(class_name, "red"),))
    low, high = bounds(rows)
    np.testing.assert_allclose(low + high, 0.0, atol=1e-12)
    assert signed_distance((canonical_object(class_name, "red"),), shell_points(0.65)).min() < 0.0


@pytest.mark.parametrize("class_name", CLASSES)
def test_every_proportion_changes_the_object_and_keeps_its_identity(
    class_name: ClassName, cameras_at: CamerasAt
) -> None:
    canonical = canonical_object(class_name, "red")
    cameras = cameras_at([(30.0, 20.0)])
    truth = render_scenes([(canonical,)], cameras)
    for k in range(len(PROPORTIONS[class_name])):
        for end in (0.0, 1.0):
            proportions = tuple(end if i == k else 0.5 for i in range(len(PROPORTIONS[class_name])))
            changed = render_scenes(
                [(PlacedObject(class_name=class_name, colour="red", proportions=proportions),)], cameras
            )
            assert psnr(changed.rgb, truth.rgb).item() < 40.0
            assert silhouette_iou(changed.alpha, truth.alpha).item() > 0.6


@pytest.mark.parametrize("class_name", CLASSES_WITH_FRONT)
def test_front_and_back_look_different(class_name: ClassName, cameras_at: CamerasAt) -> None:
    item = canonical_object(class_name, "green")
    render = render_scenes([(item,)] * 2, cameras_at([(0.0, 15.0), (180.0, 15.0)]))
    # The back is mirrored, so that its outline is that of the front; light alone changes no channel by 0.25.
    change = (render.rgb[0] - render.rgb[1].flip(1)).abs().amax(dim=-1)
    assert (change > 0.25).sum() > 0.05 * (render.alpha[0] > 0.5).sum()


@pytest.mark.parametrize("class_name", SIDES_ALIKE)
def test_light_alone_does_not_pass_for_a_front(class_name: ClassName, cameras_at: CamerasAt) -> None:
    item = canonical_object(class_name, "green")
    render = render_scenes([(item,)] * 2, cameras_at([(0.0, 15.0), (180.0, 15.0)]))
    change = (render.rgb[0] - render.rgb[1].flip(1)).abs().amax(dim=-1)
    assert (change > 0.25).sum() < 0.05 * (render.alpha[0] > 0.5).sum()


@pytest.mark.parametrize("class_name", SIDES_ALIKE)
def test_classes_without_a_right_view_have_one_outline_from_front_and_back(
    class_name: ClassName, cameras_at: CamerasAt
) -> None:
    item = canonical_object(class_name, "green")
    alpha = render_scenes([(item,)] * 2, cameras_at([(0.0, 15.0), (180.0, 15.0)])).alpha
    assert silhouette_iou(alpha[1:], alpha[:1]).min() > 0.99


@pytest.mark.parametrize("class_name", CLASSES)
def test_white_object_stands_out_from_white(class_name: ClassName, cameras_at: CamerasAt) -> None:
    render = render_scenes([(canonical_object(class_name, "white"),)], cameras_at([(30.0, 15.0)]))
    inside = render.rgb[render.alpha[..., 0] == 1.0]
    assert inside.amax() < 0.95
    assert inside.mean() < 0.80


def test_there_are_at_least_16_classes_and_ten_colours() -> None:
    assert len(set(CLASSES)) >= 16
    assert len(COLOURS) == 10
    assert all(2 <= len(names) <= 5 for names in PROPORTIONS.values())


def test_held_out_pairs_exist_and_leave_every_class_and_colour_to_learn() -> None:
    assert all(name in CLASSES and colour in COLOURS for name, colour in HELD_OUT_PAIRS)
    kept = {(name, colour) for name in CLASSES for colour in COLOURS} - HELD_OUT_PAIRS
    assert {name for name, _ in kept} == set(CLASSES)
    assert {colour for _, colour in kept} == set(COLOURS)


def test_samples_follow_their_generator() -> None:
    first = sample_object("chair", "red", np.random.default_rng(3))
    again = sample_object("chair", "red", np.random.default_rng(3))
    other = sample_object("chair", "red", np.random.default_rng(4))
    assert first == again != other
    assert len(first.proportions) == len(PROPORTIONS["chair"])


def test_scene_holds_all_its_objects_where_they_were_put() -> None:
    left = PlacedObject(class_name="ball", colour="red", proportions=(0.5, 0.5), position=(0.0, -0.5, 0.0), scale=0.5)
    right = PlacedObject(class_name="cube", colour="blue", proportions=(0.5, 0.5), position=(0.0, 0.5, 0.0), yaw_deg=30)
    expected = np.concatenate(
        [
            placed(class_rows("ball", COLOURS["red"], (0.5, 0.5)), left.position, 0.0, 0.5),
            placed(class_rows("cube", COLOURS["blue"], (0.5, 0.5)), right.position, 30.0, 1.0),
        ]
    )
    np.testing.assert_array_equal(scene_primitives((left, right)), expected)
    inside = signed_distance((left, right), torch.tensor([[0.0, -0.5, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 0.9]])) < 0
    assert inside.tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_name": "dragon"}, "class_name"),
        ({"colour": "grey"}, "colour"),
        ({"proportions": (0.5,)}, "proportions"),
        ({"proportions": (0.5, 1.5)}, "proportions"),
        ({"scale": 0.0}, "scale"),
    ],
)
def test_nonsense_objects_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PlacedObject(**({"class_name": "ball", "colour": "red", "proportions": (0.5, 0.5)} | changes))
