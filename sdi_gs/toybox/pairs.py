"""Two objects in one scene: where a relation allows the first one to be, and how both fit into the usual sphere.

Both objects face +x as they do alone, so that "in front of" means nearer to +x, whatever camera looks. A relation
leaves some numbers open (gap, shift, side): the placement.

Letters: P primitives, K columns of a row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from sdi_gs.errors import UserError
from sdi_gs.toybox.classes import COLOURS, ClassName, class_rows
from sdi_gs.toybox.objects import PlacedObject, Scene, canonical_object, sample_object
from sdi_gs.toybox.primitives import Vector, bounds

RelationName = Literal["on", "next to", "in front of", "behind"]
RELATIONS: tuple[RelationName, ...] = get_args(RelationName)

CARRIERS: tuple[ClassName, ...] = ("cube", "cylinder", "table")
"""Classes that something can stand on: their tops are flat and nearly as wide as they are."""

REACH = 0.95
"""Distance from the origin that no part of a scene exceeds, as of objects alone."""
OBJECT_REACH = 0.95
"""Distance from its own middle that no part of an object of scale 1 exceeds."""
TOP_SHARE = 0.9
"""Largest width of what stands on an object, as a share of the object's width."""
LARGEST_ON_TOP = 0.8
"""Largest scale of what stands on another object."""
FRONT_SCALE = 0.7
"""Scale of the object in front: it must not hide the other one."""
TOP_SHIFT = 0.12
"""Largest shift on top of an object from its middle, as a share of the object's half width."""
GAPS = (0.06, 0.22)
"""Smallest and largest gap between objects side by side, before both are made smaller, scene units."""
SIDE_SHIFT = 0.3
"""Largest shift across the relation of objects side by side, as a share of the second one's half width."""


@dataclass(frozen=True, kw_only=True)
class ObjectPair:
    """What is in a scene of two objects."""

    first: ClassName
    """The object whose place is named."""
    first_colour: str
    """Its colour, one of ``COLOURS``."""
    relation: RelationName
    """Where it is: on, next to, in front of or behind the second object."""
    second: ClassName
    """The other object."""
    second_colour: str
    """Its colour, one of ``COLOURS``."""

    def __post_init__(self) -> None:
        require_carrier(self.relation, self.second)


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What a relation leaves open; the middle of every range is the canonical placement."""

    gap: float = 0.5
    """In [0, 1]: from the smallest gap to the largest; on top of an object the shift along x."""
    shift: float = 0.5
    """In [0, 1]: from the largest shift to one side to that to the other."""
    left: bool = False
    """Whether an object next to another is at its -y side; only "next to" has two sides."""


def require_carrier(relation: RelationName, second: ClassName) -> None:
    """Raise UserError if nothing can stand on an object and the relation asks for it."""
    if relation == "on" and second not in CARRIERS:
        raise UserError(
            f"nothing can stand on a {second} in toybox, only on a {', a '.join(CARRIERS[:-1])} or a {CARRIERS[-1]},"
            f" whose tops are flat: name one of these, or another relation ({', '.join(RELATIONS[1:])})"
        )


def canonical_pair(pair: ObjectPair) -> Scene:
    """Return the scene of mean proportions in the canonical placement."""
    first = canonical_object(pair.first, pair.first_colour)
    return arranged(first, canonical_object(pair.second, pair.second_colour), pair.relation, Placement())


def sample_pair(pair: ObjectPair, rng: np.random.Generator) -> Scene:
    """Draw a scene of uniformly random proportions and placement."""
    first = sample_object(pair.first, pair.first_colour, rng)
    second = sample_object(pair.second, pair.second_colour, rng)
    gap, shift, side = rng.random(3).tolist()
    return arranged(first, second, pair.relation, Placement(gap=gap, shift=shift, left=side < 0.5))


def arranged(first: PlacedObject, second: PlacedObject, relation: RelationName, placement: Placement) -> Scene:
    """Return both objects, in their order, placed in a relation and scaled together to reach ``REACH``."""
    match relation:
        case "on":
            scene = _on_top(first, second, placement)
        case "next to":
            scene = _beside(first, second, placement)
        case "in front of":
            scene = _in_front(first, second, placement)
        case "behind":
            front, rear = _in_front(second, first, placement)
            scene = (rear, front)
    return _fitted(scene)


def with_colours(scene: Scene, colours: tuple[str, ...]) -> Scene:
    """Return the scene with other colours, in the order of its objects."""
    return tuple(replace(item, colour=colour) for item, colour in zip(scene, colours, strict=True))


def half_sides(item: PlacedObject) -> Vector:
    """Return half the sides of the box around an object at its scale; its middle is that of the box."""
    x, y, z = (item.scale * bounds(_rows(item))[1]).tolist()
    return x, y, z


def _on_top(upper: PlacedObject, lower: PlacedObject, placement: Placement) -> Scene:
    """Return the first object on the flat top of the second."""
    (ux, uy, uz), (lx, ly, lz) = half_sides(upper), half_sides(lower)
    scale = min(LARGEST_ON_TOP, TOP_SHARE * lx / ux, TOP_SHARE * ly / uy)
    position = (_within(placement.gap, TOP_SHIFT * lx), _within(placement.shift, TOP_SHIFT * ly), lz + scale * uz)
    return replace(upper, scale=scale, position=position), lower


def _beside(first: PlacedObject, second: PlacedObject, placement: Placement) -> Scene:
    """Return the first object at one side (+y or -y) of the second, on the same ground."""
    (_, fy, fz), (sx, sy, sz) = half_sides(first), half_sides(second)
    away = fy + sy + _gap(placement)
    across = _within(placement.shift, SIDE_SHIFT * sx)
    return replace(first, position=(across, -away if placement.left else away, fz - sz)), second


def _in_front(front: PlacedObject, rear: PlacedObject, placement: Placement) -> Scene:
    """Return the first object, made smaller, at the +x side of the second, on the same ground."""
    front = replace(front, scale=FRONT_SCALE)
    (fx, _, fz), (rx, ry, rz) = half_sides(front), half_sides(rear)
    across = _within(placement.shift, SIDE_SHIFT * ry)
    return replace(front, position=(fx + rx + _gap(placement), across, fz - rz)), rear


def _fitted(scene: Scene) -> Scene:
    """Return the scene with the middle of its box at the origin, scaled so that it reaches at most ``REACH``."""
    sides = np.array([half_sides(item) for item in scene])
    middles = np.array([item.position for item in scene])
    middle = 0.5 * ((middles - sides).min(axis=0) + (middles + sides).max(axis=0))
    away = middles - middle
    corners = np.linalg.norm(np.abs(away) + sides, axis=1)
    spheres = np.linalg.norm(away, axis=1) + OBJECT_REACH * np.array([item.scale for item in scene])
    factor = REACH / float(np.minimum(corners, spheres).max())
    moved = []
    for item, place in zip(scene, (factor * away).tolist(), strict=True):
        moved.append(replace(item, position=(place[0], place[1], place[2]), scale=factor * item.scale))
    return tuple(moved)


def _rows(item: PlacedObject) -> np.ndarray:  # [P, K]
    """Return an object's primitives in its own frame at scale 1."""
    return class_rows(item.class_name, COLOURS[item.colour], item.proportions)


def _gap(placement: Placement) -> float:
    return GAPS[0] + (GAPS[1] - GAPS[0]) * placement.gap


def _within(share: float, most: float) -> float:
    """Return a number in [-most, most] for a share in [0, 1]; 0.5 gives 0."""
    return most * (2.0 * share - 1.0)
