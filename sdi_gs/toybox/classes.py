"""The classes of toybox objects, their colours, and the primitives that each object consists of.

Letters: P primitives, K columns of a row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from sdi_gs.toybox import shapes
from sdi_gs.toybox.primitives import CENTRE, Row, Vector, bounds, placed

ClassName = Literal[
    "ball",
    "cube",
    "cone",
    "cylinder",
    "donut",
    "chair",
    "table",
    "mug",
    "mushroom",
    "snowman",
    "tree",
    "house",
    "car",
    "rocket",
    "lamp",
    "robot",
]
CLASSES: tuple[ClassName, ...] = get_args(ClassName)

# The light multiplies these by 0.3 to 1; white stands out from a white background by its shading.
COLOURS: dict[str, Vector] = {
    "red": (0.90, 0.10, 0.10),
    "orange": (1.00, 0.52, 0.08),
    "yellow": (0.98, 0.86, 0.12),
    "green": (0.12, 0.66, 0.18),
    "blue": (0.12, 0.28, 0.92),
    "purple": (0.56, 0.16, 0.78),
    "pink": (1.00, 0.52, 0.72),
    "brown": (0.48, 0.28, 0.12),
    "white": (0.93, 0.93, 0.93),
    "black": (0.10, 0.10, 0.11),
}
COLOUR_NAMES: tuple[str, ...] = tuple(COLOURS)


class _Class(NamedTuple):
    """Construction of one class's objects."""

    build: Callable[[Vector, tuple[float, ...]], list[Row]]
    """Function of colour and proportions."""
    scale: float
    """Size relative to the builder's lengths: the largest member reaches 0.95 scene units from the origin."""
    proportions: tuple[str, ...]
    """Names of the numbers in an object's ``proportions``."""


_CLASSES: dict[ClassName, _Class] = {
    "ball": _Class(shapes.build_ball, 1.0, ("radius", "height")),
    "cube": _Class(shapes.build_cube, 1.02, ("size", "height")),
    "cone": _Class(shapes.build_cone, 0.95, ("radius", "height")),
    "cylinder": _Class(shapes.build_cylinder, 1.04, ("radius", "height")),
    "donut": _Class(shapes.build_donut, 1.03, ("ring", "tube")),
    "chair": _Class(shapes.build_chair, 0.88, ("width", "leg length", "back height", "thickness")),
    "table": _Class(shapes.build_table, 0.90, ("width", "depth", "height", "thickness")),
    "mug": _Class(shapes.build_mug, 1.0, ("radius", "height", "handle")),
    "mushroom": _Class(shapes.build_mushroom, 1.10, ("cap radius", "cap height", "stem height", "stem radius")),
    "snowman": _Class(shapes.build_snowman, 0.825, ("bottom", "middle", "head", "hat")),
    "tree": _Class(shapes.build_tree, 0.95, ("height", "width", "trunk")),
    "house": _Class(shapes.build_house, 0.86, ("width", "depth", "wall height", "roof height")),
    "car": _Class(shapes.build_car, 0.98, ("length", "width", "body height", "cabin height")),
    "rocket": _Class(shapes.build_rocket, 0.865, ("radius", "height", "nose", "fins")),
    "lamp": _Class(shapes.build_lamp, 1.07, ("shade radius", "shade height", "post height", "base radius")),
    "robot": _Class(shapes.build_robot, 0.865, ("body width", "body height", "head", "arms", "legs")),
}

PROPORTIONS: dict[ClassName, tuple[str, ...]] = {name: made.proportions for name, made in _CLASSES.items()}
"""Names of the numbers in ``proportions``, by class."""


def class_rows(class_name: ClassName, colour: Vector, proportions: tuple[float, ...]) -> NDArray[np.float64]:
    """Return the rows [P, K] of one object in its own frame, with the middle of its bounding box at the origin."""
    made = _CLASSES[class_name]
    rows = np.array(made.build(colour, proportions))
    low, high = bounds(rows)
    rows[:, CENTRE : CENTRE + 3] -= 0.5 * (low + high)
    return placed(rows, (0.0, 0.0, 0.0), 0.0, made.scale)
