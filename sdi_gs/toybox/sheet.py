"""Contact sheet of all toybox classes: ``python -m sdi_gs.toybox.sheet OUT.png``.

One column per class; front, side, back, overhead, then three random draws from the front left.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sdi_gs.errors import UserError
from sdi_gs.toybox.classes import CLASSES, COLOURS
from sdi_gs.toybox.objects import Scene, canonical_object, sample_object
from sdi_gs.toybox.renderer import render_scenes
from sdi_gs.toybox.views import toybox_cameras

# Azimuth and elevation of each row, degrees.
CANONICAL_VIEWS = ((0.0, 15.0), (90.0, 15.0), (180.0, 15.0), (30.0, 75.0))
SAMPLE_VIEW = (35.0, 20.0)
NUM_SAMPLES = 3


def contact_sheet(size: int) -> Tensor:  # [rows * size, classes * size, 3] in [0, 1]
    """All classes side by side, each in another colour."""
    rng = np.random.default_rng(0)
    colours = list(COLOURS)
    scenes: list[Scene] = []
    views: list[tuple[float, float]] = []
    for row in range(len(CANONICAL_VIEWS) + NUM_SAMPLES):
        for column, class_name in enumerate(CLASSES):
            if row < len(CANONICAL_VIEWS):
                scenes.append((canonical_object(class_name, colours[column % len(colours)]),))
                views.append(CANONICAL_VIEWS[row])
            else:
                scenes.append((sample_object(class_name, colours[(column + 3 * row) % len(colours)], rng),))
                views.append(SAMPLE_VIEW)
    azimuth, elevation = torch.tensor(views).unbind(1)
    cameras = toybox_cameras(azimuth, elevation, size=size)
    rgb = render_scenes(scenes, cameras).rgb
    tiles = rgb.reshape(-1, len(CLASSES), size, size, 3)
    return tiles.permute(0, 2, 1, 3, 4).reshape(-1, len(CLASSES) * size, 3)


def main(arguments: list[str]) -> None:
    """Write the sheet; raises UserError unless one path is given."""
    from PIL import Image

    if len(arguments) != 1:
        raise UserError("usage: python -m sdi_gs.toybox.sheet OUT.png")
    pixels = (contact_sheet(96) * 255.0).round().to(torch.uint8).numpy()
    Image.fromarray(pixels).save(Path(arguments[0]))


if __name__ == "__main__":
    main(sys.argv[1:])
