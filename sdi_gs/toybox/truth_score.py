"""Scores of an object's images against toybox's truth, independent of how the object was made.

Truth is a family of objects (``sdi_gs.toybox.truth``): the score is that of the best of K random members ("best of
K"), reported beside that of the canonical member. Best of K is biased upwards, so the best score of any wrong class
under the same rule is reported as a floor.

Letters: V views, H W pixels, K draws.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.contracts import RenderOutput
from sdi_gs.errors import UserError
from sdi_gs.toybox import metrics
from sdi_gs.toybox.captions import ToyboxPrompt
from sdi_gs.toybox.classes import CLASSES, COLOURS, ClassName
from sdi_gs.toybox.detail import detail, detail_inside
from sdi_gs.toybox.objects import PlacedObject, Shown, canonical_object, scene_of
from sdi_gs.toybox.pairs import ObjectPair, canonical_pair
from sdi_gs.toybox.truth import NUM_DRAWS, NUM_WRONG_CLASS_DRAWS, pair_draws, truth_draws
from sdi_gs.toybox.truth_renders import TruthRenders
from sdi_gs.toybox.truth_sides import judge_views
from sdi_gs.toybox.truth_yaw import RenderFunction, Turned, compare, undo_yaw


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
    psnr_free: float | None
    """Mean PSNR over views against the draw where it is highest, with the scene's turn undone, dB; None for images."""
    iou_free: float | None
    """Mean silhouette IoU over views, untouched or with the turn undone, whichever is higher; None for images."""
    yaw_deg: float | None
    """The scene's turn from truth about z, from +x towards +y, at which PSNR is highest; None for images."""
    iou_wrong_class: float | None
    """The floor: the highest mean IoU against ``num_wrong_class_draws`` draws of every other class; None for 0."""
    wrong_class: ClassName | None
    """The class that reached the floor."""
    detail: float
    """Share of truth's Laplacian that is explained (``sdi_gs.toybox.detail``), with the turn undone."""
    detail_inside: float | None
    """The same without the outline; None where truth has almost no detail there."""
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
    """Whether the nearest of the ten colours is the prompt's, of both objects; True for a prompt without a colour."""
    colour: str
    """The nearest of the ten colours; of two objects both, as in "red and blue"."""
    patch_changes: float | None
    """Share of the borders between patches at which the shade changes, 0.5 for a typical member; None if plain."""
    chroma_spread: float | None
    """Spread of chroma over the part in the object's colour minus truth's; None for a prompt with a colour."""
    colour_distance: float | None
    """Distance of that part's mean colour from ``colour``; None for a prompt with a colour."""
    num_draws: int
    """K of "best of K"."""
    num_wrong_class_draws: int
    """K of the floor, per class."""

    def as_json(self) -> dict[str, Any]:
        """Return the score as JSON keys and values."""
        return asdict(self)


def score_against_truth(
    rgb: Tensor,  # [V, H, W, 3] composited over white, [0, 1]
    alpha: Tensor,  # [V, H, W, 1]
    cameras: CameraBatch,  # V of them
    prompt: ToyboxPrompt,
    num_draws: int = NUM_DRAWS,
    num_wrong_class_draws: int = NUM_WRONG_CLASS_DRAWS,
    *,
    render: RenderFunction | None = None,
    renders: TruthRenders | None = None,
) -> TruthScore:
    """Score images of one object or two. The prompt's view is ignored; without a colour, the nearest one is taken.

    ``render`` renders the object from other cameras, for the scores that are free of its turn. ``renders`` keeps
    truth's renders for further scores in the same views. Without draws of wrong classes there is no floor.

    Raises UserError if the prompt names no object, ValueError if the shapes or the views disagree.
    """
    if prompt.class_name is None:
        raise UserError(f"without an object there is no truth to score against; name one of {', '.join(CLASSES)}")
    expected = (len(cameras), cameras.height, cameras.width)
    if rgb.shape != (*expected, 3) or alpha.shape != (*expected, 1):
        raise ValueError(f"rgb {tuple(rgb.shape)} and alpha {tuple(alpha.shape)} do not fit cameras {expected}")
    if num_draws < 1 or num_wrong_class_draws < 0:
        raise ValueError(f"num_draws is {num_draws}, at least 1; of wrong classes {num_wrong_class_draws}, at least 0")
    renders = renders or TruthRenders(cameras)
    if not torch.equal(renders.cameras.world_from_camera, cameras.world_from_camera) or expected != renders.shape:
        raise ValueError(f"the renders of truth were made for other views than these {len(cameras)}")
    views = RenderOutput(rgb=rgb.detach().cpu().float(), alpha=alpha.detach().cpu().float())
    canonical, draws = _family(prompt, views, num_draws, renders)
    scores = compare(views, [canonical, *draws], renders)
    untouched = Turned(yaw_deg=0.0, views=views, scores=scores[1:])
    free = undo_yaw(untouched, render, draws, renders) if render is not None else None
    iou_wrong_class, wrong_class = _floor(views, canonical, num_wrong_class_draws, renders)
    return TruthScore(
        psnr_best=scores[1:, 0].max().item(),
        iou_best=scores[1:, 1].max().item(),
        psnr_canonical=scores[0, 0].item(),
        iou_canonical=scores[0, 1].item(),
        psnr_free=free and free.scores[:, 0].max().item(),
        iou_free=free and max(free.scores[:, 1].max().item(), scores[1:, 1].max().item()),
        yaw_deg=free and free.yaw_deg,
        iou_wrong_class=iou_wrong_class,
        wrong_class=wrong_class,
        **_image_scores(untouched, draws, prompt, renders),
        **_turned_scores(free or untouched, draws, prompt, renders),
        num_draws=len(draws),
        num_wrong_class_draws=num_wrong_class_draws,
    )


def _image_scores(seen: Turned, draws: list[Shown], prompt: ToyboxPrompt, renders: TruthRenders) -> dict[str, Any]:
    """Return the scores of the images as they are, against the draw of the best PSNR."""
    nearest, views = draws[int(seen.scores[:, 0].argmax())], seen.views
    truth = renders.views_like([nearest], views)
    mask = metrics.silhouette(truth.alpha[0])
    colours = [nearest_colour(views, nearest, renders, index)[0] for index in range(len(scene_of(nearest)))]
    single = isinstance(nearest, PlacedObject)
    view_accuracy, front_back_right = judge_views(views.rgb, nearest, renders) if single else (None, None)
    return {
        "sharpness_ratio": metrics.sharpness_ratio(views.rgb, truth.rgb[0], mask),
        "saturation_error": metrics.saturation_error(views.rgb, truth.rgb[0], mask),
        "fog": metrics.fog(views.alpha, mask),
        "view_accuracy": view_accuracy,
        "front_back_right": front_back_right,
        "colour_right": all(wanted in (None, seen) for wanted, seen in zip(prompt.colours, colours, strict=True)),
        "colour": " and ".join(colours),
    }


def _turned_scores(seen: Turned, draws: list[Shown], prompt: ToyboxPrompt, renders: TruthRenders) -> dict[str, Any]:
    """Return the scores of the images with the scene's turn undone, against the draw of the best PSNR."""
    nearest, views = draws[int(seen.scores[:, 0].argmax())], seen.views
    truth = renders.views_like([nearest], views)
    mask = metrics.silhouette(truth.alpha[0])
    inside = detail_inside(views.rgb, truth.rgb[0], mask)
    spread = distance = None
    if prompt.colour is None and prompt.second is None:
        region = metrics.own_colour_region(renders.in_every_colour(nearest).rgb)
        both = region & mask & metrics.silhouette(views.alpha)
        spread = metrics.chroma_spread(views.rgb, truth.rgb[0], both)
        _, distance = nearest_colour(views, nearest, renders)
    return {
        "detail": detail(views.rgb, truth.rgb[0], mask).explained,
        "detail_inside": inside and inside.explained,
        "patch_changes": renders.patch_changes(nearest, views),
        "chroma_spread": spread,
        "colour_distance": distance,
    }


def _family(
    prompt: ToyboxPrompt, views: RenderOutput, num_draws: int, renders: TruthRenders
) -> tuple[Shown, list[Shown]]:
    """Return the canonical member and K draws of what a prompt means, in the nearest colours where it names none."""
    assert prompt.class_name is not None
    if prompt.second is not None:
        pair = pair_in_nearest_colours(prompt, views, renders)
        return canonical_pair(pair), [*pair_draws(pair, num_draws)]
    any_colour = canonical_object(prompt.class_name, next(iter(COLOURS)), prompt.style)
    colour = prompt.colour or nearest_colour(views, any_colour, renders)[0]
    draws = truth_draws(prompt.class_name, colour, num_draws, prompt.style)
    return canonical_object(prompt.class_name, colour, prompt.style), [*draws]


def pair_in_nearest_colours(prompt: ToyboxPrompt, views: RenderOutput, renders: TruthRenders) -> ObjectPair:
    """Return the two objects of a prompt; of a colour that it leaves open, the nearest one to the images."""
    some = next(iter(COLOURS))
    canonical = canonical_pair(prompt.pair([colour or some for colour in prompt.colours]))
    return prompt.pair(
        [wanted or nearest_colour(views, canonical, renders, i)[0] for i, wanted in enumerate(prompt.colours)]
    )


def nearest_colour(views: RenderOutput, item: Shown, renders: TruthRenders, index: int = 0) -> tuple[str, float]:
    """Return which of the ten colours the images of an object like ``item`` show, and how far from it they are.

    In a scene it is the object with the index.
    """
    truth = renders.in_every_colour(item, index)
    by_colour = dict(zip(COLOURS, truth.rgb, strict=True))
    distances = metrics.colour_distances(views.rgb, views.alpha, by_colour, truth.alpha[0])
    nearest = min(distances, key=lambda name: distances[name])
    return nearest, distances[nearest]


def _floor(
    views: RenderOutput, right: Shown, num_draws: int, renders: TruthRenders
) -> tuple[float | None, ClassName | None]:
    """Return the highest mean silhouette IoU against members of any wrong class, and that class; none of a scene."""
    if num_draws == 0 or not isinstance(right, PlacedObject):
        return None, None
    ours, by_class = metrics.silhouette(views.alpha), dict[ClassName, float]()
    for name in CLASSES:
        if name != right.class_name:
            masks = renders.silhouettes(truth_draws(name, right.colour, num_draws))
            by_class[name] = metrics.mask_iou(ours, masks).mean(dim=1).max().item()
    wrong = max(by_class, key=lambda name: by_class[name])
    return by_class[wrong], wrong
