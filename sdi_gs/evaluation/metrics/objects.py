"""Metric "objects": of a prompt with two, whether each is there, in its own colour and place (docs/toybox.md)."""

from __future__ import annotations

from typing import Any

from sdi_gs.contracts import RenderOutput, Representation
from sdi_gs.errors import UserError
from sdi_gs.evaluation.metrics.metric import IMAGE_SIZE, Metric, Subject, TableRow
from sdi_gs.evaluation.metrics.truth import toybox_prompt
from sdi_gs.pictures.views import render_views
from sdi_gs.toybox.captions import ToyboxPrompt
from sdi_gs.toybox.judge import load_judge
from sdi_gs.toybox.pair_score import PairScore, score_pair
from sdi_gs.toybox.truth import held_out_cameras
from sdi_gs.toybox.truth_renders import TruthRenders


def score_objects(representation: Representation, prompt: str, *, image_size: int = IMAGE_SIZE) -> PairScore:
    """Score the two objects of the held-out views over white; UserError for a prompt that does not name two."""
    wanted = toybox_prompt(prompt)
    if wanted.second is None:
        raise UserError(f'"{prompt}" names one object; this metric needs two, as in "a red ball on a blue cube"')
    cameras = held_out_cameras(image_size)
    return _scored(representation, render_views(representation, cameras), wanted, TruthRenders(cameras))


def _compute(subject: Subject) -> dict[str, Any]:
    assert subject.toybox is not None
    if subject.toybox.second is None:
        return {}
    return _scored(subject.representation, subject.views, subject.toybox, subject.truth).as_json()


def _scored(
    representation: Representation, views: RenderOutput, wanted: ToyboxPrompt, renders: TruthRenders
) -> PairScore:
    return score_pair(views, wanted, load_judge(), renders, lambda turned: render_views(representation, turned))


OBJECTS = Metric(
    name="objects",
    compute=_compute,
    needs_truth=True,
    rows=(
        TableRow(title="both objects, own colours", score="{bound}"),
        TableRow(title="first object there", score="{first_present} ({first_colour})"),
        TableRow(title="second object there", score="{second_present} ({second_colour})"),
        TableRow(title="colours swapped", score="{colours_swapped}"),
        TableRow(title="relation right", score="{relation_right} ({relation})"),
        TableRow(title="judge: objects right", score="{first_judge_class}, {second_judge_class}"),
        TableRow(title="judge: colours right", score="{first_judge_colour}, {second_judge_colour}"),
    ),
)
