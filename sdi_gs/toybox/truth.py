"""Scores of an object's images against toybox's truth, independent of how the object was made.

A prompt leaves proportions and size open, so truth is a family of objects: the score is that of the best of K random
members ("best of K"), reported beside that of the canonical member. Best of K is biased upwards, so the best score of
any wrong class under the same rule is reported as a floor.

Letters: V views, H W pixels, K draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch, ViewWord, orbit_cameras
from sdi_gs.errors import UserError
from sdi_gs.toybox import metrics
from sdi_gs.toybox.captions import ToyboxPrompt
from sdi_gs.toybox.classes import CLASSES, COLOURS, ClassName
from sdi_gs.toybox.objects import (
    CLASSES_WITH_FRONT,
    SIDES_ALIKE,
    PlacedObject,
    Scene,
    canonical_object,
    sample_object,
)
from sdi_gs.toybox.renderer import ToyboxRender, render_scenes
from sdi_gs.toybox.splits import split_seed
from sdi_gs.toybox.views import toybox_cameras

NUM_DRAWS = 32
NUM_WRONG_CLASS_DRAWS = 8
"""Draws of each wrong class: fewer than ``NUM_DRAWS`` to save time, which makes the floor a little low."""

HELD_OUT_ELEVATIONS_DEG = (-4.0, 13.0, 31.0)
HELD_OUT_AZIMUTHS = 8
# First azimuth of each ring of views; whole multiples of 5 that no usual training grid (15, 30, 45) contains.
HELD_OUT_OFFSETS_DEG = (10.0, 25.0, 40.0)

# Objects rendered in one call: large enough to keep threads busy, small enough for memory at 128 px.
OBJECTS_AT_ONCE = 11

VIEW_GRID_AZIMUTHS = 24
# Offset by half a step, so that no azimuth of the grid lies on the border of two view words.
VIEW_GRID_OFFSET_DEG = 7.5


@dataclass(frozen=True, kw_only=True)
class TruthScore:
    """Scores of images against truth; the field names are the JSON keys of ``sdi-gs eval``."""

    psnr_best: float
    """Mean PSNR over views against the draw where it is highest, dB."""
    iou_best: float
    """Mean silhouette IoU over views against the draw where it is highest."""
    psnr_canonical: float
    """Mean PSNR over views against the canonical object, dB."""
    iou_canonical: float
    """Mean silhouette IoU over views against the canonical object."""
    iou_wrong_class: float
    """The floor: the highest mean IoU against ``num_wrong_class_draws`` draws of every other class."""
    wrong_class: ClassName
    """The class that reached the floor."""
    sharpness_ratio: float
    """Laplacian energy over that of the best draw (by PSNR)."""
    saturation_error: float
    """Mean chroma minus that of the best draw, in [-1, 1]."""
    fog: float
    """Mean alpha farther than 2 pixels outside the best draw's silhouette."""
    view_accuracy: float | None
    """Share of views whose nearest true view has the same view word; None if sides differ by light only."""
    front_back_right: bool | None
    """Whether front views look like the true front and back views like the true back; None without a front."""
    colour_right: bool
    """Whether the nearest of the ten colours is the prompt's; True for a prompt without a colour."""
    colour: str
    """The nearest of the ten colours."""
    num_draws: int
    """K of "best of K"."""
    num_wrong_class_draws: int
    """K of the floor, per class."""

    def as_json(self) -> dict[str, Any]:
        """Return the score as JSON keys and values."""
        return asdict(self)


def held_out_cameras(image_size: int) -> CameraBatch:
    """Return 24 cameras for scoring: 8 azimuths on each of 3 elevations, toybox's usual distance and field of view."""
    azimuth, elevation = [], []
    for offset, height in zip(HELD_OUT_OFFSETS_DEG, HELD_OUT_ELEVATIONS_DEG, strict=True):
        azimuth += [offset + 360.0 / HELD_OUT_AZIMUTHS * k for k in range(HELD_OUT_AZIMUTHS)]
        elevation += [height] * HELD_OUT_AZIMUTHS
    return toybox_cameras(torch.tensor(azimuth), torch.tensor(elevation), size=image_size)


def truth_draws(class_name: ClassName, colour: str, num_draws: int = NUM_DRAWS) -> list[PlacedObject]:
    """Draw K random objects that fit the prompt from the "truth" stream; fewer draws are a prefix of more."""
    rng = split_seed("truth", CLASSES.index(class_name))
    return [sample_object(class_name, colour, rng) for _ in range(num_draws)]


def score_against_truth(
    rgb: Tensor,  # [V, H, W, 3] composited over white, [0, 1]
    alpha: Tensor,  # [V, H, W, 1]
    cameras: CameraBatch,  # V of them
    prompt: ToyboxPrompt,
    num_draws: int = NUM_DRAWS,
    num_wrong_class_draws: int = NUM_WRONG_CLASS_DRAWS,
) -> TruthScore:
    """Score images of one object. The prompt's view is ignored; without a colour, the nearest one is taken.

    Raises UserError if the prompt names no object, ValueError if the shapes disagree.
    """
    if prompt.class_name is None:
        raise UserError(f"without an object there is no truth to score against; name one of {', '.join(CLASSES)}")
    expected = (len(cameras), cameras.height, cameras.width)
    if rgb.shape != (*expected, 3) or alpha.shape != (*expected, 1):
        raise ValueError(f"rgb {tuple(rgb.shape)} and alpha {tuple(alpha.shape)} do not fit cameras {expected}")
    if num_draws < 1 or num_wrong_class_draws < 1:
        raise ValueError(f"num_draws is {num_draws}, of wrong classes {num_wrong_class_draws}; both must be at least 1")
    rgb, alpha = rgb.detach().cpu().float(), alpha.detach().cpu().float()
    colour = prompt.colour or _seen_colour(
        rgb, alpha, cameras, canonical_object(prompt.class_name, next(iter(COLOURS)))
    )
    canonical = canonical_object(prompt.class_name, colour)
    draws = truth_draws(prompt.class_name, colour, num_draws)
    scores = _compare(rgb, alpha, [canonical, *draws], cameras)
    best_draw = draws[int(scores[1:, 0].argmax())]
    best = render_truth([best_draw], cameras)
    mask = metrics.silhouette(best.alpha)
    wrong = [
        draw
        for name in CLASSES
        if name != prompt.class_name
        for draw in truth_draws(name, colour, num_wrong_class_draws)
    ]
    wrong_iou = _compare(rgb, alpha, wrong, cameras)[:, 1]
    seen_colour = _seen_colour(rgb, alpha, cameras, best_draw)
    view_accuracy, front_back_right = _judge_views(rgb, cameras, best_draw)
    return TruthScore(
        psnr_best=scores[1:, 0].max().item(),
        iou_best=scores[1:, 1].max().item(),
        psnr_canonical=scores[0, 0].item(),
        iou_canonical=scores[0, 1].item(),
        iou_wrong_class=wrong_iou.max().item(),
        wrong_class=wrong[int(wrong_iou.argmax())].class_name,
        sharpness_ratio=metrics.sharpness_ratio(rgb, best.rgb, mask),
        saturation_error=metrics.saturation_error(rgb, best.rgb, mask),
        fog=metrics.fog(alpha, mask),
        view_accuracy=view_accuracy,
        front_back_right=front_back_right,
        colour_right=prompt.colour is None or seen_colour == prompt.colour,
        colour=seen_colour,
        num_draws=num_draws,
        num_wrong_class_draws=num_wrong_class_draws,
    )


def render_truth(items: Sequence[PlacedObject], cameras: CameraBatch) -> ToyboxRender:
    """Render each of K objects alone over white in all V cameras; K * V images, object by object."""
    scenes: list[Scene] = [(item,) for item in items for _ in range(len(cameras))]
    return render_scenes(scenes, _repeat(cameras, len(items)))


def _compare(rgb: Tensor, alpha: Tensor, items: Sequence[PlacedObject], cameras: CameraBatch) -> Tensor:  # [K, 2]
    """Return the mean PSNR and the mean silhouette IoU over the views, against each of K objects."""
    scores = []
    for start in range(0, len(items), OBJECTS_AT_ONCE):
        chunk = items[start : start + OBJECTS_AT_ONCE]
        truth = render_truth(chunk, cameras)
        psnr = metrics.psnr(rgb, truth.rgb.unflatten(0, (len(chunk), -1))).mean(dim=1)
        iou = metrics.silhouette_iou(alpha, truth.alpha.unflatten(0, (len(chunk), -1))).mean(dim=1)
        scores.append(torch.stack([psnr, iou], dim=1))
    return torch.cat(scores)


def _seen_colour(rgb: Tensor, alpha: Tensor, cameras: CameraBatch, item: PlacedObject) -> str:
    """Return which of the ten colours the images of an object like ``item`` show."""
    truth = render_truth([replace(item, colour=colour) for colour in COLOURS], cameras)
    renders = truth.rgb.unflatten(0, (len(COLOURS), -1))
    by_colour = dict(zip(COLOURS, renders, strict=True))
    return metrics.nearest_colour(rgb, alpha, by_colour, truth.alpha[: len(cameras)])


def _judge_views(rgb: Tensor, cameras: CameraBatch, item: PlacedObject) -> tuple[float | None, bool | None]:
    """Return the view accuracy, and whether front and back are on the right sides (see ``TruthScore``).

    Every view is compared with the true object seen from ``VIEW_GRID_AZIMUTHS`` sides at the same elevation.
    """
    if item.class_name in SIDES_ALIKE:
        return None, None
    words = cameras.view_words()
    distances, grid_words = _distances_to_grid(rgb, cameras, item)
    nearest_words = [grid_words[v][int(distances[v].argmin())] for v in range(len(words))]
    accuracy = sum(near == word for near, word in zip(nearest_words, words, strict=True)) / len(words)
    if item.class_name not in CLASSES_WITH_FRONT or not {"front view", "back view"} <= set(words):
        return accuracy, None

    def error(shown: ViewWord, true: ViewWord) -> float:
        """Return the sum, over the views with one word, of the distance to the nearest true view with the other."""
        return sum(
            min(d for d, candidate in zip(distances[v].tolist(), grid_words[v], strict=True) if candidate == true)
            for v, word in enumerate(words)
            if word == shown
        )

    front_right = error("front view", "front view") < error("front view", "back view")
    back_right = error("back view", "back view") < error("back view", "front view")
    return accuracy, front_right and back_right


def _distances_to_grid(
    rgb: Tensor, cameras: CameraBatch, item: PlacedObject
) -> tuple[Tensor, list[list[ViewWord]]]:  # [V, grid], words of the grid views
    """Return every view's mean squared error against the true object from all sides, and those sides' view words."""
    azimuth = VIEW_GRID_OFFSET_DEG + 360.0 / VIEW_GRID_AZIMUTHS * torch.arange(VIEW_GRID_AZIMUTHS)
    distances, words = [], []
    for v in range(len(cameras)):
        grid = _cameras_around(cameras, v, azimuth)
        distances.append(metrics.squared_error(rgb[v], render_truth([item], grid).rgb))
        words.append(grid.view_words())
    return torch.stack(distances), words


def _cameras_around(cameras: CameraBatch, index: int, azimuth_deg: Tensor) -> CameraBatch:
    """Return cameras like one of the batch at other azimuths."""
    distance = cameras.world_from_camera[index, :3, 3].norm().item()
    fov_y_deg = math.degrees(2.0 * math.atan(0.5 * cameras.height / cameras.intrinsics[index, 1, 1].item()))
    count = len(azimuth_deg)
    return orbit_cameras(
        azimuth_deg,
        torch.full((count,), cameras.elevation_deg[index].item()),
        torch.full((count,), distance),
        torch.full((count,), fov_y_deg),
        width=cameras.width,
        height=cameras.height,
    )


def _repeat(cameras: CameraBatch, times: int) -> CameraBatch:
    """Repeat the whole batch of cameras several times."""
    return CameraBatch(
        world_from_camera=cameras.world_from_camera.repeat(times, 1, 1),
        intrinsics=cameras.intrinsics.repeat(times, 1, 1),
        azimuth_deg=cameras.azimuth_deg.repeat(times),
        elevation_deg=cameras.elevation_deg.repeat(times),
        width=cameras.width,
        height=cameras.height,
    )
