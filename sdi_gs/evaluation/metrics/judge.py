"""Metric "judge": recognition of the views by toybox's judge, a small classifier (docs/eval.md)."""

from __future__ import annotations

from typing import Any

from sdi_gs.contracts import Representation
from sdi_gs.errors import UserError
from sdi_gs.evaluation.metrics.metric import IMAGE_SIZE, Metric, Subject, TableRow
from sdi_gs.evaluation.metrics.truth import toybox_prompt
from sdi_gs.pictures.views import render_views
from sdi_gs.toybox.judge import JudgeScore, load_judge
from sdi_gs.toybox.truth import held_out_cameras


def judge_scene(representation: Representation, prompt: str, *, image_size: int = IMAGE_SIZE) -> JudgeScore:
    """Judge the held-out views over white; UserError for a prompt without a toybox truth, and for two objects."""
    wanted = toybox_prompt(prompt)
    if wanted.second is not None:
        raise UserError(f'"{prompt}" names two objects, and the judge knows objects alone: score them by "objects"')
    cameras = held_out_cameras(image_size)
    render = render_views(representation, cameras)
    return load_judge().score(render.rgb, cameras.view_words(), wanted)


def _compute(subject: Subject) -> dict[str, Any]:
    assert subject.toybox is not None
    if subject.toybox.second is not None:
        return {}  # The judge knows objects alone; the metric "objects" cuts them out.
    return load_judge().score(subject.views.rgb, subject.cameras.view_words(), subject.toybox).as_json()


JUDGE = Metric(
    name="judge",
    compute=_compute,
    needs_truth=True,
    rows=(
        TableRow(title="judge: object right", score="{judge_class}"),
        TableRow(title="judge: colour right", score="{judge_colour}"),
        TableRow(title="judge: side right", score="{judge_view}"),
        TableRow(title="judge: backs taken for fronts", score="{judge_back_as_front}"),
    ),
)
