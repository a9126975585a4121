"""Objects and scenes of toybox: their data, random draws, and the pairs held out for testing.

Letters: P primitives, K columns of a row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sdi_gs.toybox.classes import CLASSES, COLOURS, PROPORTIONS, ClassName, class_rows
from sdi_gs.toybox.primitives import ROW_LENGTH, Vector, placed
from sdi_gs.toybox.styles import STYLE_NAMES, StyleName

HELD_OUT_PAIRS: frozenset[tuple[ClassName, str]] = frozenset(
    {
        ("car", "yellow"),
        ("chair", "purple"),
        ("mug", "pink"),
        ("mushroom", "blue"),
        ("cube", "orange"),
        ("robot", "green"),
        ("donut", "red"),
        ("house", "purple"),
    }
)
"""Held-out pairs that no prior is trained on."""

CLASSES_WITH_FRONT: tuple[ClassName, ...] = ("chair", "snowman", "house", "car", "rocket", "robot")
"""Classes whose front and back look different."""

SIDES_ALIKE: tuple[ClassName, ...] = (
    "ball",
    "cube",
    "cone",
    "cylinder",
    "donut",
    "table",
    "mushroom",
    "tree",
    "lamp",
)
"""Classes whose sides differ by light only; they have no correct view."""


@dataclass(frozen=True, kw_only=True)
class PlacedObject:
    """One object somewhere in the world."""

    class_name: ClassName
    """One of ``CLASSES``."""
    colour: str
    """One of ``COLOURS``; classes of several colours wear it where a name says (a hat, a roof)."""
    proportions: tuple[float, ...]
    """Numbers in [0, 1] in the order of ``PROPORTIONS``; 0.5 is the canonical object."""
    position: Vector = (0.0, 0.0, 0.0)
    """Position of its middle, scene units."""
    yaw_deg: float = 0.0
    """Turn about z in degrees, from +x towards +y."""
    scale: float = 1.0
    """Size relative to the canonical one."""
    style: StyleName | None = None
    """How its surface is cut into patches, whose shades are open (``patches.py``); None for a plain object."""

    def __post_init__(self) -> None:
        if self.class_name not in CLASSES:
            raise ValueError(f"class_name is {self.class_name!r}; expected one of {', '.join(CLASSES)}")
        if self.colour not in COLOURS:
            raise ValueError(f"colour is {self.colour!r}; expected one of {', '.join(COLOURS)}")
        if self.style not in (None, *STYLE_NAMES):
            raise ValueError(f"style is {self.style!r}; expected None or one of {', '.join(STYLE_NAMES)}")
        names = PROPORTIONS[self.class_name]
        if len(self.proportions) != len(names) or not all(0.0 <= p <= 1.0 for p in self.proportions):
            raise ValueError(
                f"proportions of a {self.class_name} are {len(names)} numbers in [0, 1] ({', '.join(names)}),"
                f" not {self.proportions}"
            )
        if not self.scale > 0.0:
            raise ValueError(f"scale is {self.scale}; it must be above 0")


Scene = tuple[PlacedObject, ...]

Shown = PlacedObject | Scene
"""One object alone, or a scene of several."""


def scene_of(shown: Shown) -> Scene:
    """Return the scene that shows an object alone, or the scene itself."""
    return (shown,) if isinstance(shown, PlacedObject) else shown


def style_of(shown: Shown) -> StyleName | None:
    """Return the style of an object alone; scenes of several objects have none."""
    return shown.style if isinstance(shown, PlacedObject) else None


def recoloured(shown: Shown, colour: str, index: int = 0) -> Shown:
    """Return the same with another colour of its object, of that with the index in a scene."""
    if isinstance(shown, PlacedObject):
        return replace(shown, colour=colour)
    return (*shown[:index], replace(shown[index], colour=colour), *shown[index + 1 :])


def canonical_object(class_name: ClassName, colour: str, style: StyleName | None = None) -> PlacedObject:
    """Return the object of mean proportions, at the origin, facing +x."""
    proportions = (0.5,) * len(PROPORTIONS[class_name])
    return PlacedObject(class_name=class_name, colour=colour, proportions=proportions, style=style)


def sample_object(class_name: ClassName, colour: str, rng: np.random.Generator) -> PlacedObject:
    """Draw an object of uniformly random proportions, at the origin, facing +x."""
    proportions = tuple(rng.random(len(PROPORTIONS[class_name])).tolist())
    return PlacedObject(class_name=class_name, colour=colour, proportions=proportions)


def scene_primitives(scene: Scene) -> NDArray[np.float64]:
    """Return all primitives of a scene as rows [P, K] (layout in ``primitives.py``)."""
    blocks = [np.zeros((0, ROW_LENGTH))]
    for item in scene:
        rows = class_rows(item.class_name, COLOURS[item.colour], item.proportions)
        blocks.append(placed(rows, item.position, item.yaw_deg, item.scale))
    return np.concatenate(blocks)
