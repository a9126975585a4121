"""Contact sheet of all toybox classes: ``python -m sdi_gs.toybox.sheet OUT.png [STYLE|two]``.

One column per class; front, side, back, overhead, then three random draws from the front left. With a style, one random
member of it per class from the same four sides. With "two", scenes of two objects, a row each.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sdi_gs.errors import UserError
from sdi_gs.toybox.captions import parse_prompt
from sdi_gs.toybox.classes import CLASSES, COLOURS
from sdi_gs.toybox.objects import Scene, canonical_object, sample_object
from sdi_gs.toybox.pairs import canonical_pair, sample_pair
from sdi_gs.toybox.patches import draw_shades, render_patches
from sdi_gs.toybox.renderer import render_scenes
from sdi_gs.toybox.styles import STYLE_NAMES, StyleName
from sdi_gs.toybox.views import toybox_cameras

# Azimuth and elevation of each row, degrees.
CANONICAL_VIEWS = ((0.0, 15.0), (90.0, 15.0), (180.0, 15.0), (30.0, 75.0))
SAMPLE_VIEW = (35.0, 20.0)
NUM_SAMPLES = 3
PAIRS = (
    "a red ball on a blue cube",
    "a snowman with a red hat on a brown table",
    "a green chair next to a yellow lamp",
    "a green tree next to a house with a purple roof",
    "a white mug in front of a house with a red roof",
    "an orange rocket in front of a black cube",
    "a blue robot behind a yellow car",
    "a pink donut behind a green mushroom",
)
"""Two prompts per relation."""


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


def styled_sheet(size: int, style: StyleName) -> Tensor:  # [rows * size, classes * size, 3] in [0, 1]
    """A random member of every class, each in another colour; black would hide its pattern."""
    rng = np.random.default_rng(0)
    colours = [colour for colour in COLOURS if colour != "black"]
    azimuth, elevation = torch.tensor(CANONICAL_VIEWS).unbind(1)
    cameras = toybox_cameras(azimuth, elevation, size=size)
    columns = []
    for column, class_name in enumerate(CLASSES):
        item = canonical_object(class_name, colours[column % len(colours)], style)
        patches = render_patches([item] * len(cameras), cameras)
        columns.append(patches.shaded(draw_shades(style, rng)).flatten(0, 1))
    return torch.cat(columns, dim=1)


def pairs_sheet(size: int) -> Tensor:  # [pairs * size, views * size, 3] in [0, 1]
    """Scenes of two objects: a row each, the canonical scene from all sides and random members."""
    rng = np.random.default_rng(0)
    rows = []
    for text in PAIRS:
        prompt = parse_prompt(text)
        pair = prompt.pair([str(colour) for colour in prompt.colours])
        scenes = [canonical_pair(pair)] * len(CANONICAL_VIEWS) + [sample_pair(pair, rng) for _ in range(NUM_SAMPLES)]
        azimuth, elevation = torch.tensor([*CANONICAL_VIEWS, *[SAMPLE_VIEW] * NUM_SAMPLES]).unbind(1)
        rgb = render_scenes(scenes, toybox_cameras(azimuth, elevation, size=size)).rgb
        rows.append(torch.cat(list(rgb), dim=1))
    return torch.cat(rows)


def main(arguments: list[str]) -> None:
    """Write the sheet; raises UserError unless a path, and perhaps a style or "two", is given."""
    from PIL import Image

    if len(arguments) not in (1, 2) or not set(arguments[1:]) <= {*STYLE_NAMES, "two"}:
        raise UserError(f"usage: python -m sdi_gs.toybox.sheet OUT.png [{'|'.join(STYLE_NAMES)}|two]")
    styles: list[StyleName] = [name for name in STYLE_NAMES if name in arguments[1:]]
    if "two" in arguments[1:]:
        sheet = pairs_sheet(96)
    else:
        sheet = styled_sheet(96, styles[0]) if styles else contact_sheet(96)
    pixels = (sheet * 255.0).round().to(torch.uint8).numpy()
    Image.fromarray(pixels).save(Path(arguments[0]))


if __name__ == "__main__":
    main(sys.argv[1:])
