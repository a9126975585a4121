"""Toybox's truth: the family of objects that a prompt may mean, and their exact renders in the held-out views.

A prompt leaves proportions and size open, so truth is a family: K random members, drawn from a stream that no prior
has used, beside the canonical one. Of two objects their placement is open, too. Objects with a style all have canonical
proportions: their patches are what is open.

Letters: V views, K objects or scenes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.toybox.captions import ToyboxPrompt
from sdi_gs.toybox.classes import CLASSES, ClassName
from sdi_gs.toybox.objects import PlacedObject, Scene, Shown, canonical_object, sample_object, scene_of, style_of
from sdi_gs.toybox.pairs import RELATIONS, ObjectPair, canonical_pair, sample_pair
from sdi_gs.toybox.patches import draw_shades, render_patches
from sdi_gs.toybox.renderer import WHITE, ToyboxRender, render_scenes
from sdi_gs.toybox.splits import split_seed
from sdi_gs.toybox.styles import StyleName
from sdi_gs.toybox.views import toybox_cameras

NUM_DRAWS = 32
NUM_WRONG_CLASS_DRAWS = 8
"""Draws of each wrong class: fewer than ``NUM_DRAWS`` to save time, which makes the floor a little low."""

HELD_OUT_ELEVATIONS_DEG = (-4.0, 13.0, 31.0)
HELD_OUT_AZIMUTHS = 8
# First azimuth of each ring of views; whole multiples of 5 that no usual training grid (15, 30, 45) contains.
HELD_OUT_OFFSETS_DEG = (10.0, 25.0, 40.0)


def held_out_cameras(image_size: int) -> CameraBatch:
    """Return 24 cameras for scoring: 8 azimuths on each of 3 elevations, toybox's usual distance and field of view."""
    azimuth, elevation = [], []
    for offset, height in zip(HELD_OUT_OFFSETS_DEG, HELD_OUT_ELEVATIONS_DEG, strict=True):
        azimuth += [offset + 360.0 / HELD_OUT_AZIMUTHS * k for k in range(HELD_OUT_AZIMUTHS)]
        elevation += [height] * HELD_OUT_AZIMUTHS
    return toybox_cameras(torch.tensor(azimuth), torch.tensor(elevation), size=image_size)


def truth_draws(
    class_name: ClassName, colour: str, num_draws: int = NUM_DRAWS, style: StyleName | None = None
) -> list[PlacedObject]:
    """Draw K random objects that fit the prompt from the "truth" stream; fewer draws are a prefix of more.

    With a style there is one object, the canonical one.
    """
    if style is not None:
        return [canonical_object(class_name, colour, style)]
    rng = split_seed("truth", CLASSES.index(class_name))
    return [sample_object(class_name, colour, rng) for _ in range(num_draws)]


def pair_draws(pair: ObjectPair, num_draws: int = NUM_DRAWS) -> list[Scene]:
    """Draw K random scenes of two objects from the "truth" stream; fewer draws are a prefix of more."""
    kinds = (CLASSES.index(pair.first), CLASSES.index(pair.second), RELATIONS.index(pair.relation))
    index = int(np.ravel_multi_index(kinds, (len(CLASSES), len(CLASSES), len(RELATIONS))))
    rng = split_seed("truth", 2 * len(CLASSES) + index)
    return [sample_pair(pair, rng) for _ in range(num_draws)]


def canonical_member(prompt: ToyboxPrompt, colour: str) -> Shown:
    """Return the mean of what a prompt means; ``colour``, or two as in "red and blue", is that which it leaves open."""
    if prompt.class_name is None:
        raise ValueError("a prompt without an object has no member")
    open_colours = colour.split(" and ")
    if prompt.second is None:
        return canonical_object(prompt.class_name, prompt.colour or open_colours[0], prompt.style)
    first, second = prompt.colours
    return canonical_pair(prompt.pair([first or open_colours[0], second or open_colours[-1]]))


def render_truth(
    items: Sequence[Shown],
    cameras: CameraBatch,
    background: Tensor | Sequence[float] = WHITE,  # [K * V, 3] or [3]
) -> ToyboxRender:
    """Render each of K objects or scenes in all V cameras; K * V images, one after the other.

    An object with a style is shown as one of its members, the same at every call.
    """
    scenes: list[Scene] = [scene_of(item) for item in items for _ in range(len(cameras))]
    repeated = cameras.repeated(len(items))
    plain = render_scenes(scenes, repeated, background)
    if style_of(items[0]) is None:
        return plain
    light = [_member(item) for (item,) in scenes]
    patches = render_patches([item for (item,) in scenes], repeated)
    return replace(plain, rgb=patches.shaded(torch.stack(light), background))


def _member(item: PlacedObject) -> Tensor:  # [Q] bool
    """Return the shades of an object's example."""
    assert item.style is not None
    return draw_shades(item.style, split_seed("truth", len(CLASSES) + CLASSES.index(item.class_name)))
