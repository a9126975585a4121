"""Random pictures of toybox with labels: the training data of the networks.

Letters: B images, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from sdi_gs.cameras import VIEW_WORDS, CameraBatch
from sdi_gs.settings.backgrounds import BACKGROUND_COLOURS, BACKGROUND_NAMES, BackgroundName
from sdi_gs.toybox.captions import describe
from sdi_gs.toybox.classes import CLASSES, COLOUR_NAMES, PROPORTIONS, ClassName
from sdi_gs.toybox.objects import (
    CLASSES_WITH_FRONT,
    HELD_OUT_PAIRS,
    PlacedObject,
    Scene,
    sample_object,
)
from sdi_gs.toybox.renderer import render_scenes
from sdi_gs.toybox.views import toybox_cameras

SIMPLE_CLASSES: tuple[ClassName, ...] = ("ball", "cube", "cone", "cylinder")
SYNONYMS: dict[ClassName, str] = {"donut": "doughnut", "mug": "cup", "ball": "sphere", "cube": "box"}


@dataclass(frozen=True, kw_only=True)
class ExamplesConfig:
    """Distribution of the pictures."""

    image_size: int = 64
    """Side in pixels."""
    elevation_deg: tuple[float, float] = (-10.0, 40.0)
    """Range of camera elevations of all views but the overhead one, as in the toybox presets."""
    overhead_share: float = 0.06
    """Share of pictures from above, at ``overhead_elevation_deg``."""
    overhead_elevation_deg: tuple[float, float] = (60.5, 80.0)
    """Range of camera elevations from above; "overhead view" begins at 60."""
    simple_weight: float = 0.6
    """Frequency of ball, cube, cone and cylinder relative to other classes."""
    front_weight: float = 1.4
    """Frequency of classes whose front differs from their back, relative to other classes."""
    white_share: float = 0.5
    """Share of pictures over white; gray and black share the rest equally."""
    held_out_pairs: bool = False
    """Whether the held-out pairs are drawn too."""
    own_colour_background: bool = False
    """Whether the background may have the object's colour."""
    wild_share: float = 0.0
    """Share of pictures without caption: one or two objects of any size, anywhere, over any colour."""

    def __post_init__(self) -> None:
        for name in ("overhead_share", "white_share", "wild_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be in [0, 1]")


@dataclass(frozen=True, kw_only=True)
class Examples:
    """B pictures, described but not yet rendered; indices refer to the tuples of names."""

    scenes: list[Scene]
    cameras: CameraBatch
    background_rgb: Tensor  # [B, 3]
    classes: Tensor  # [B] int64 into CLASSES
    colours: Tensor  # [B] int64 into COLOUR_NAMES
    views: Tensor  # [B] int64 into VIEW_WORDS
    backgrounds: Tensor  # [B] int64 into BACKGROUND_NAMES

    def render(self) -> tuple[Tensor, Tensor]:
        """Render pictures [B, 3, H, W] in [0, 1] and their alpha [B, 1, H, W]."""
        render = render_scenes(self.scenes, self.cameras, self.background_rgb)
        return render.rgb.permute(0, 3, 1, 2), render.alpha.permute(0, 3, 1, 2)


def draw_examples(config: ExamplesConfig, count: int, rng: np.random.Generator) -> Examples:
    """Draw the contents of B pictures."""
    weights = np.array([_class_weight(config, name) for name in CLASSES])
    low, high = config.elevation_deg
    azimuth = 360.0 * rng.random(count)
    elevation = low + (high - low) * rng.random(count)
    above = rng.random(count) < config.overhead_share
    low, high = config.overhead_elevation_deg
    elevation = np.where(above, low + (high - low) * rng.random(count), elevation)
    scenes: list[Scene] = []
    rows = np.zeros((count, 3), np.int64)
    palette = np.zeros((count, 3))
    for index in range(count):
        item = _draw_object(config, weights, rng)
        background = _draw_background(config, item.colour, rng)
        rows[index] = (
            CLASSES.index(item.class_name),
            COLOUR_NAMES.index(item.colour),
            BACKGROUND_NAMES.index(background),
        )
        palette[index] = BACKGROUND_COLOURS[background]
        scenes.append((item,))
        if rng.random() < config.wild_share:
            scenes[-1] = tuple(_moved(_draw_object(config, weights, rng), rng) for _ in range(rng.integers(1, 3)))
            palette[index] = rng.random(3)
    around, above = (torch.from_numpy(angles).float() for angles in (azimuth, elevation))
    cameras = toybox_cameras(around, above, size=config.image_size)
    return Examples(
        scenes=scenes,
        cameras=cameras,
        background_rgb=torch.from_numpy(palette).float(),
        classes=torch.from_numpy(rows[:, 0]),
        colours=torch.from_numpy(rows[:, 1]),
        views=torch.tensor([VIEW_WORDS.index(word) for word in cameras.view_words()]),
        backgrounds=torch.from_numpy(rows[:, 2]),
    )


def _class_weight(config: ExamplesConfig, name: ClassName) -> float:
    if name in SIMPLE_CLASSES:
        return config.simple_weight
    return config.front_weight if name in CLASSES_WITH_FRONT else 1.0


def _draw_object(config: ExamplesConfig, weights: np.ndarray, rng: np.random.Generator) -> PlacedObject:
    while True:
        name = CLASSES[int(rng.choice(len(CLASSES), p=weights / weights.sum()))]
        colour = COLOUR_NAMES[int(rng.integers(len(COLOUR_NAMES)))]
        if config.held_out_pairs or (name, colour) not in HELD_OUT_PAIRS:
            return sample_object(name, colour, rng)


def _draw_background(config: ExamplesConfig, colour: str, rng: np.random.Generator) -> BackgroundName:
    rest = 0.5 * (1.0 - config.white_share)
    shares = {"white": config.white_share, "gray": rest, "black": rest}
    allowed = [name for name in get_args(BackgroundName) if config.own_colour_background or name != colour]
    weights = np.array([shares[name] for name in allowed]) + 1e-9
    return allowed[int(rng.choice(len(allowed), p=weights / weights.sum()))]


def _moved(item: PlacedObject, rng: np.random.Generator) -> PlacedObject:
    """Return the object moved, turned and scaled."""
    x, y, z = (0.9 * (rng.random(3) - 0.5)).tolist()
    return PlacedObject(
        class_name=item.class_name,
        colour=item.colour,
        proportions=tuple(rng.random(len(PROPORTIONS[item.class_name])).tolist()),
        position=(x, y, z),
        yaw_deg=float(rng.uniform(-180.0, 180.0)),
        scale=float(rng.uniform(0.5, 1.2)),
    )


@dataclass(frozen=True, kw_only=True)
class CaptionsConfig:
    """Distribution of the captions."""

    view_share: float = 0.97
    """Share of captions that name the view."""
    background_share: float = 0.9
    """Share of captions that name the background."""
    colour_share: float = 0.97
    """Share of captions that name the colour."""
    synonym_share: float = 0.1
    """Share of captions that use a synonym for the object, if it has one."""


PREFIXES = ("", "", "a photo of ", "a 3d render of ", "a DSLR photo of ")


def write_caption(
    config: CaptionsConfig, attributes: Sequence[int], rng: np.random.Generator
) -> tuple[str, tuple[bool, bool, bool]]:
    """Return a caption in the words that runs use, and whether it names colour, view and background.

    ``attributes`` are the indices of class, colour, view and background.
    """
    class_index, colour_index, view, background = attributes
    name, colour = CLASSES[class_index], COLOUR_NAMES[colour_index]
    says_colour, says_view, says_background = (
        bool(rng.random() < share) for share in (config.colour_share, config.view_share, config.background_share)
    )
    word = SYNONYMS.get(name, name) if rng.random() < config.synonym_share else name
    if not says_colour:
        text = f"a {word}"
    elif rng.random() < 0.5 and word == name:
        text = describe(name, colour)
    else:
        text = f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {word}"
    text = PREFIXES[int(rng.integers(len(PREFIXES)))] + text
    if says_view:
        text += f", {VIEW_WORDS[view]}"
    if says_background:
        text += f", {BACKGROUND_NAMES[background]} background"
    return text, (says_colour, says_view, says_background)
