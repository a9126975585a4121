"""Scores of a scene of two objects: is each there, in its own colour, and in the right relation?

The scene is compared with draws of every arrangement of the two objects, in their own colours and with the colours
swapped, at every turn that a view word allows. The nearest draw tells where each object should be seen, which the
other questions need; the prompt has no part in finding it.

Letters: V views, H W pixels, K draws.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.contracts import RenderOutput
from sdi_gs.toybox import metrics
from sdi_gs.toybox.captions import ToyboxPrompt
from sdi_gs.toybox.classes import CLASSES, COLOUR_NAMES
from sdi_gs.toybox.judge import Judge
from sdi_gs.toybox.object_crops import MOSTLY_SEEN, crop_object, pixels_of_objects
from sdi_gs.toybox.objects import PlacedObject, Scene
from sdi_gs.toybox.pairs import CARRIERS, RELATIONS, ObjectPair, with_colours
from sdi_gs.toybox.truth import pair_draws
from sdi_gs.toybox.truth_renders import FEW, TruthRenders
from sdi_gs.toybox.truth_score import nearest_colour, pair_in_nearest_colours
from sdi_gs.toybox.truth_yaw import COARSE_STEP_DEG, MOST_YAW_DEG, RenderFunction, turned

NUM_PAIR_DRAWS = 16
"""Draws of every arrangement."""
NUM_LONE_DRAWS = 6
"""Of these, draws that are also tried with one of their objects missing."""
UNDER = "under"
"""The relation that no prompt names: the second object on the first one."""


@dataclass(frozen=True, kw_only=True)
class ObjectScore:
    """What is seen of one object."""

    present: bool
    """Whether the silhouettes are nearer to those of the nearest draw than to the same without the object."""
    colour: str | None
    """The nearest of the ten colours where the object should be; None for an object that is absent."""
    colour_right: bool
    """Whether it is there and has its own colour; any will do where the prompt names none."""
    judge_class: float
    """Share of the views that show most of the object in which the judge sees its class."""
    judge_colour: float | None
    """Share of these views in which the judge sees its colour; None for a prompt without."""


@dataclass(frozen=True, kw_only=True)
class PairScore:
    """Scores of two objects; with ``first_`` and ``second_`` before the objects' names, the JSON keys of ``eval``."""

    first: ObjectScore
    """The object whose place the prompt names."""
    second: ObjectScore
    """The other one."""
    bound: bool
    """Whether both objects are present with their own colours."""
    colours_swapped: bool
    """Whether each object has the other's colour."""
    relation: str
    """The relation of the nearest draw, one of ``RELATIONS`` or "under"."""
    relation_right: bool
    """Whether both objects are there and the nearest draw is of the prompt's relation."""

    def as_json(self) -> dict[str, Any]:
        """Return the score as JSON keys and values."""
        objects = {"first": self.first, "second": self.second}
        flat = {f"{name}_{key}": value for name, item in objects.items() for key, value in asdict(item).items()}
        return flat | {key: value for key, value in asdict(self).items() if key not in objects}


@dataclass(frozen=True, kw_only=True)
class NearestPair:
    """The draw that is nearest to a scene."""

    scene: Scene
    """The two objects in the prompt's order."""
    relation: str
    """How they are placed."""
    views: RenderOutput
    """The predicted views with the turn undone, in which it is nearest."""


def score_pair(
    views: RenderOutput,  # V of them over white
    prompt: ToyboxPrompt,
    judge: Judge,
    renders: TruthRenders,
    render: RenderFunction | None = None,
) -> PairScore:
    """Score the views of a scene of two objects; ``render`` gives others, for the turn. ValueError for one object."""
    if prompt.second is None:
        raise ValueError("a prompt of one object has no pair to score")
    views = RenderOutput(rgb=views.rgb.detach().cpu().float(), alpha=views.alpha.detach().cpu().float())
    found = nearest_pair(views, pair_in_nearest_colours(prompt, views, renders), renders, render)
    first, second = (_score_object(found, index, prompt, judge, renders) for index in (0, 1))
    seen, own = (first.colour, second.colour), prompt.colours
    return PairScore(
        first=first,
        second=second,
        bound=first.colour_right and second.colour_right,
        colours_swapped=None not in own and own[0] != own[1] and seen == (own[1], own[0]),
        relation=found.relation,
        relation_right=first.present and second.present and found.relation == prompt.second.relation,
    )


def nearest_pair(
    views: RenderOutput,  # V of them
    pair: ObjectPair,
    renders: TruthRenders,
    render: RenderFunction | None,
) -> NearestPair:
    """Return the nearest draw of any arrangement by the mean error over every third view.

    Some are compared without one of their objects as well: of a scene that lacks one, the other must be found.
    """
    few = renders.few
    half = round(MOST_YAW_DEG / COARSE_STEP_DEG) if render is not None else 0
    yaws = [COARSE_STEP_DEG * k for k in range(-half, half + 1)]
    seen = {yaw: _views_at(yaw, views, few, render).rgb for yaw in yaws}
    best: tuple[float, float, Scene, str] | None = None
    for relation, scenes in arrangements(pair):
        lone = [(scene, item) for scene in scenes[:NUM_LONE_DRAWS] for item in scene]
        shown = [*scenes, *((item,) for _, item in lone)]
        whole = [*scenes, *(scene for scene, _ in lone)]
        truth = few.views(shown).rgb
        for yaw, rgb in seen.items():
            errors = metrics.squared_error(rgb, truth).mean(dim=1)
            index = int(errors.argmin())
            if best is None or errors[index].item() < best[0]:
                best = errors[index].item(), yaw, whole[index], relation
    assert best is not None
    _, yaw, scene, relation = best
    undone = views if yaw == 0.0 or render is None else render(turned(renders.cameras, yaw))
    return NearestPair(scene=scene, relation=relation, views=undone)


def arrangements(pair: ObjectPair) -> Iterator[tuple[str, list[Scene]]]:
    """Yield the name and K draws of every arrangement of two objects, in the pair's own order.

    Colours are the pair's own, and then swapped. Two objects of one class have own colours alone: swapped they are
    placed the other way round.
    """
    own = (pair.first_colour, pair.second_colour)
    swapped = [own[::-1]] if own[0] != own[1] and pair.first != pair.second else []
    for colours in [own, *swapped]:
        for relation in RELATIONS:
            if relation != "on" or pair.second in CARRIERS:
                kind = ObjectPair(
                    first=pair.first,
                    first_colour=own[0],
                    relation=relation,
                    second=pair.second,
                    second_colour=own[1],
                )
                yield relation, [with_colours(scene, colours) for scene in pair_draws(kind, NUM_PAIR_DRAWS)]
        if pair.first in CARRIERS:
            kind = ObjectPair(
                first=pair.second,
                first_colour=own[1],
                relation="on",
                second=pair.first,
                second_colour=own[0],
            )
            yield UNDER, [with_colours(scene[::-1], colours) for scene in pair_draws(kind, NUM_PAIR_DRAWS)]


def _views_at(yaw: float, views: RenderOutput, few: TruthRenders, render: RenderFunction | None) -> RenderOutput:
    """Return the predicted views of ``few`` with a turn undone."""
    if render is None or yaw == 0.0:
        return RenderOutput(rgb=views.rgb[FEW], alpha=views.alpha[FEW])
    return render(turned(few.cameras, yaw))


def _score_object(
    found: NearestPair, index: int, prompt: ToyboxPrompt, judge: Judge, renders: TruthRenders
) -> ObjectScore:
    """Return the scores of the first (0) or the second (1) object."""
    item, other, wanted = found.scene[index], found.scene[1 - index], prompt.colours[index]
    whole, without = metrics.silhouette(renders.views([found.scene]).alpha[0]), renders.views([(other,)]).alpha[0]
    ours = metrics.silhouette(found.views.alpha)
    present = bool(metrics.mask_iou(ours, whole).mean() > metrics.mask_iou(ours, metrics.silhouette(without)).mean())
    colour = nearest_colour(found.views, found.scene, renders, index)[0] if present else None
    judged_class, judged_colour = _judge_object(found.views.rgb, item, other, wanted, judge, renders.cameras)
    return ObjectScore(
        present=present,
        colour=colour,
        colour_right=present and wanted in (None, colour),
        judge_class=judged_class,
        judge_colour=judged_colour,
    )


def _judge_object(
    rgb: Tensor,  # [V, H, W, 3]
    item: PlacedObject,
    other: PlacedObject,
    wanted: str | None,
    judge: Judge,
    cameras: CameraBatch,
) -> tuple[float, float | None]:
    """Return the shares of the views in which the judge sees an object's class, and its colour if one is wanted."""
    other_shown, share = pixels_of_objects(item, other, cameras)
    shown = share >= MOSTLY_SEEN
    if not shown.any():
        return 0.0, None if wanted is None else 0.0
    verdict = judge(crop_object(rgb, other_shown, item, cameras)[shown])
    classes = (verdict.classes == CLASSES.index(item.class_name)).float().mean().item()
    if wanted is None:
        return classes, None
    return classes, (verdict.colours == COLOUR_NAMES.index(wanted)).float().mean().item()
