"""Scenes of two objects: where a relation puts them, and that they fit where objects alone do."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from sdi_gs.errors import UserError
from sdi_gs.toybox.classes import CLASSES, ClassName
from sdi_gs.toybox.objects import CLASSES_WITH_FRONT, Scene, scene_primitives
from sdi_gs.toybox.pairs import (
    CARRIERS,
    RELATIONS,
    ObjectPair,
    RelationName,
    canonical_pair,
    sample_pair,
    with_colours,
)
from sdi_gs.toybox.primitives import bounds
from sdi_gs.toybox.renderer import signed_distance

RADIUS = 0.95


def pair_of(first: ClassName, relation: RelationName, second: ClassName) -> ObjectPair:
    return ObjectPair(first=first, first_colour="red", relation=relation, second=second, second_colour="blue")


def boxes(scene: Scene) -> list[tuple[np.ndarray, np.ndarray]]:
    """Lowest and highest corner of each object in the world, from its primitives."""
    return [bounds(scene_primitives((item,))) for item in scene]


def some_pairs(relation: RelationName) -> list[ObjectPair]:
    seconds = CARRIERS if relation == "on" else CLASSES
    return [pair_of(first, relation, seconds[(k * 5 + 1) % len(seconds)]) for k, first in enumerate(CLASSES)]


@pytest.mark.parametrize("relation", RELATIONS)
def test_draws_are_in_their_relation_apart_and_inside_the_sphere_of_objects_alone(relation: RelationName) -> None:
    rng = np.random.default_rng(1)
    direction = rng.normal(size=(4000, 3))
    shell = torch.from_numpy(RADIUS * direction / np.linalg.norm(direction, axis=1, keepdims=True))
    for pair in some_pairs(relation):
        for scene in (canonical_pair(pair), sample_pair(pair, rng), sample_pair(pair, rng)):
            (low, high), (other_low, other_high) = boxes(scene)
            match relation:
                case "on":
                    assert low[2] == pytest.approx(other_high[2])
                    assert np.all(low[:2] > other_low[:2] - 0.1) and np.all(high[:2] < other_high[:2] + 0.1)
                case "next to":
                    assert low[1] > other_high[1] or high[1] < other_low[1]
                    assert low[2] == pytest.approx(other_low[2])
                case "in front of":
                    assert low[0] > other_high[0]
                    assert high[2] - low[2] < 2.0 * RADIUS * 0.7
                case "behind":
                    assert high[0] < other_low[0]
            assert signed_distance(scene, shell).min() > 0.0
            both_low, both_high = bounds(scene_primitives(scene))
            np.testing.assert_allclose(both_low + both_high, 0.0, atol=1e-9)
            assert (both_high - both_low).max() > 0.9, "small in the picture"
            assert [item.class_name for item in scene] == [pair.first, pair.second]
            assert [item.yaw_deg for item in scene] == [0.0, 0.0]


def test_objects_next_to_each_other_have_both_orders_and_behind_is_in_front_the_other_way_round() -> None:
    rng = np.random.default_rng(0)
    sides = {sample_pair(pair_of("ball", "next to", "cube"), rng)[0].position[1] > 0.0 for _ in range(20)}
    assert sides == {True, False}
    behind = canonical_pair(pair_of("robot", "behind", "car"))
    in_front = canonical_pair(
        ObjectPair(first="car", first_colour="blue", relation="in front of", second="robot", second_colour="red")
    )
    assert behind == in_front[::-1]


def test_draws_differ_in_proportions_and_placement_and_repeat_with_the_seed() -> None:
    pair = pair_of("chair", "next to", "lamp")
    first, again = ([sample_pair(pair, np.random.default_rng(3)) for _ in range(2)] for _ in range(2))
    assert first == again
    one, other = (sample_pair(pair, np.random.default_rng(seed)) for seed in (3, 4))
    assert one[0].proportions != other[0].proportions and one[1].proportions != other[1].proportions
    assert one[0].position != other[0].position
    canonical = canonical_pair(pair)
    assert all(set(item.proportions) == {0.5} for item in canonical)


def test_only_flat_tops_carry() -> None:
    for first, second in itertools.product(CLASSES_WITH_FRONT, CLASSES):
        if second in CARRIERS:
            pair_of(first, "on", second)
        else:
            with pytest.raises(UserError, match=f"nothing can stand on a {second} in toybox, only on a cube"):
                pair_of(first, "on", second)


def test_colours_are_given_in_the_order_of_the_objects() -> None:
    scene = with_colours(canonical_pair(pair_of("ball", "on", "cube")), ("green", "pink"))
    assert [(item.class_name, item.colour) for item in scene] == [("ball", "green"), ("cube", "pink")]
