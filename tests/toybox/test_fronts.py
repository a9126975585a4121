"""The count of fronts, on true objects and on forgeries whose number of fronts is known."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sdi_gs.cameras import joined_cameras
from sdi_gs.contracts import RenderOutput
from sdi_gs.toybox.classes import ClassName
from sdi_gs.toybox.fronts import (
    APART_DEG,
    AZIMUTHS,
    HOLLOW,
    MEMBERS,
    STEP_DEG,
    Fronts,
    _apart,
    count_fronts,
    front_cameras,
)
from sdi_gs.toybox.metrics import psnr
from sdi_gs.toybox.objects import CLASSES_WITH_FRONT, PlacedObject, canonical_object, sample_object
from sdi_gs.toybox.splits import split_seed
from sdi_gs.toybox.truth import render_truth, truth_draws
from sdi_gs.toybox.truth_yaw import turned

CAMERAS = front_cameras(48)
Forgery = Callable[[float], float]
"""The side that a forged object shows to each azimuth, degrees."""


def member(class_name: ClassName) -> PlacedObject:
    """An object that is none of those which views are compared with."""
    return sample_object(class_name, "blue", split_seed("val", 3))


def shown(item: PlacedObject, side_of: Forgery) -> RenderOutput:
    """The ring of views of an object that shows each azimuth one of its sides, with this side's light."""
    off = [side_of(STEP_DEG * number) - STEP_DEG * number for number in range(AZIMUTHS)]
    cameras = [turned(CAMERAS.rows(slice(number, number + 1)), angle) for number, angle in enumerate(off)]
    render = render_truth([item], joined_cameras(cameras))
    return RenderOutput(rgb=render.rgb, alpha=render.alpha, depth=render.depth)


def two_halves(azimuth: float) -> float:
    """Two front halves, back to back."""
    return azimuth if azimuth <= 90.0 or azimuth >= 270.0 else azimuth - 180.0


def counted(views: RenderOutput, item: PlacedObject) -> Fronts:
    return count_fronts(views, item.class_name, item.colour)


@pytest.mark.parametrize("yaw_deg", [0.0, 52.0, 180.0])
@pytest.mark.parametrize("class_name", CLASSES_WITH_FRONT)
def test_a_whole_object_has_one_front_however_it_is_turned(class_name: ClassName, yaw_deg: float) -> None:
    item = member(class_name)
    found = counted(shown(item, lambda azimuth: azimuth - yaw_deg), item)
    assert (found.fronts, found.two_fronts) == (1, False)
    assert abs((found.turn_deg - yaw_deg + 180.0) % 360.0 - 180.0) <= STEP_DEG
    assert found.sides_agree > 0.95
    assert (found.sides_right > 0.95) == (yaw_deg == 0.0)
    assert found.psnr_turned > 17.0
    assert found.hollow is not None and found.hollow < 0.05


@pytest.mark.parametrize("class_name", CLASSES_WITH_FRONT)
def test_two_front_halves_are_two_fronts(class_name: ClassName) -> None:
    item = member(class_name)
    found = counted(shown(item, two_halves), item)
    assert (found.fronts, found.two_fronts) == (2, True)
    assert found.sides_agree < 0.8


@pytest.mark.parametrize("class_name", CLASSES_WITH_FRONT)
def test_a_front_on_every_side_is_three(class_name: ClassName) -> None:
    item = member(class_name)
    found = counted(shown(item, lambda _: 10.0), item)
    assert (found.fronts, found.two_fronts) == (3, True)
    assert found.sides_agree < 0.5


@pytest.mark.parametrize("class_name", CLASSES_WITH_FRONT)
def test_what_looks_alike_from_all_sides_without_a_front_has_none(class_name: ClassName) -> None:
    item = member(class_name)
    assert counted(shown(item, lambda _: 180.0), item).fronts == 0
    whole = shown(item, lambda azimuth: azimuth)
    every = replace(whole, rgb=whole.rgb.mean(dim=0, keepdim=True).expand_as(whole.rgb))
    assert counted(every, item).fronts == 0
    # Front and back at once, on either side.
    both = replace(whole, rgb=0.5 * (whole.rgb + whole.rgb.roll(AZIMUTHS // 2, dims=0)))
    assert counted(both, item).fronts == 0


@pytest.mark.parametrize("class_name", CLASSES_WITH_FRONT)
def test_blur_and_speckle_make_no_front_and_hide_none(class_name: ClassName) -> None:
    item, generator = member(class_name), torch.Generator().manual_seed(0)

    def spoilt(views: RenderOutput) -> RenderOutput:
        blurred = torch.nn.functional.avg_pool2d(views.rgb.permute(0, 3, 1, 2), 3, stride=1, padding=1)
        noise = 0.1 * torch.randn(views.rgb.shape, generator=generator)
        return replace(views, rgb=(blurred.permute(0, 2, 3, 1) + noise).clamp(0.0, 1.0))

    assert counted(spoilt(shown(item, lambda azimuth: azimuth)), item).fronts == 1
    assert counted(spoilt(shown(item, two_halves)), item).fronts == 2


def test_hollow_is_behind_the_surface_that_is_shown() -> None:
    item = member("robot")
    views = shown(item, two_halves)
    assert views.depth is not None

    def hollow(depth: Tensor) -> float | None:
        return counted(replace(views, depth=depth), item).hollow

    flat, deep = hollow(views.depth), hollow(views.depth + HOLLOW + 0.2)
    assert flat is not None and deep is not None
    assert flat < 0.05
    assert deep > 0.9
    assert counted(replace(views, depth=None), item).hollow is None


def test_psnr_is_that_of_the_best_member_at_its_best_turn() -> None:
    members = [canonical_object("car", "blue"), *truth_draws("car", "blue", MEMBERS - 1)]
    turns = [STEP_DEG * number for number in range(AZIMUTHS)]
    noise = 0.1 * torch.randn(AZIMUTHS, 48, 48, 3, generator=torch.Generator().manual_seed(2))
    views = shown(members[5], lambda azimuth: azimuth - 75.0)
    views = replace(views, rgb=views.rgb + noise)
    expected = max(
        psnr(views.rgb, shown(item, lambda azimuth, turn=turn: azimuth - turn).rgb).mean().item()
        for item in members[4:6]
        for turn in turns
    )
    assert counted(views, members[5]).psnr_turned == pytest.approx(expected, abs=1e-3)
    assert expected == pytest.approx(20.0, abs=0.1)


def test_most_views_apart_are_those_of_all_subsets() -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(40):
        views = torch.nonzero(torch.rand(AZIMUTHS, generator=generator) < 0.25).flatten().tolist()

        def apart(chosen: tuple[int, ...]) -> bool:
            gaps = [abs(a - b) * STEP_DEG for a, b in itertools.combinations(chosen, 2)]
            return all(min(gap, 360.0 - gap) >= APART_DEG for gap in gaps)

        sizes = (n for n in range(1, 4) for chosen in itertools.combinations(views, n) if apart(chosen))
        assert _apart(views) == max(sizes, default=0)


def test_other_views_are_refused() -> None:
    views = RenderOutput(rgb=torch.ones(8, 64, 64, 3), alpha=torch.ones(8, 64, 64, 1))
    with pytest.raises(ValueError, match="24 of them"):
        count_fronts(views, "robot", "blue")
