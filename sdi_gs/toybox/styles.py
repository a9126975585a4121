"""The styles of toybox: how a style cuts an object's surface into patches.

A style cuts space into cells of the object's frame; a patch is what a cell cuts out of the surface. Each patch is light
or dark, independently of all others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

StyleName = Literal["patchwork", "striped"]
STYLE_NAMES: tuple[StyleName, ...] = get_args(StyleName)

REACH = 1.0
"""Half side of the cube that the cells fill; objects reach 0.95 from their middle."""
# Faces of cells lie at these values modulo the side: at least 0.005 from every flat face of every canonical object.
CELL_OFFSET = (0.057, 0.0825, 0.0745)
SEAM = 0.04
"""Distance from a patch's border at which it has its full shade, scene units: about one pixel."""
LIGHT_SHADE = 1.0
"""Factor of a light patch: it has the object's own colour."""
DARK_SHADE = 0.25
"""Factor of a dark patch. Shades above 1 would leave the displayable colours."""


@dataclass(frozen=True, kw_only=True)
class Style:
    """The cells of a style."""

    sides: tuple[float, float, float]
    """Sides of a cell along x, y and z, scene units; inf does not cut."""

    @property
    def counts(self) -> tuple[int, int, int]:
        """Number of cells along each axis, enough for every object."""
        x, y, z = (1 if math.isinf(side) else math.ceil(2.0 * REACH / side) + 1 for side in self.sides)
        return x, y, z

    @property
    def num_cells(self) -> int:
        """Number of all cells."""
        return math.prod(self.counts)


# A pixel at the origin is 0.0375 scene units wide (64 pixels, the usual camera): 0.2 are five pixels.
STYLES: dict[StyleName, Style] = {
    "patchwork": Style(sides=(0.2, 0.2, 0.2)),
    "striped": Style(sides=(math.inf, math.inf, 0.2)),
}
