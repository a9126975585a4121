"""Metric "fronts": how many fronts an object shows, whatever its turn, by toybox's truth (docs/janus.md)."""

from __future__ import annotations

from typing import Any

from sdi_gs.evaluation.metrics.metric import Metric, Subject, TableRow
from sdi_gs.pictures.views import render_views
from sdi_gs.toybox.captions import ToyboxPrompt
from sdi_gs.toybox.fronts import Fronts, count_fronts, front_cameras
from sdi_gs.toybox.objects import CLASSES_WITH_FRONT


def _compute(subject: Subject) -> dict[str, Any]:
    found = None
    prompt = subject.toybox
    if prompt is not None and _has_one_front(prompt):
        assert prompt.class_name is not None and prompt.colour is not None
        views = render_views(subject.representation, front_cameras(subject.image_size), with_depth=True)
        found = count_fronts(views, prompt.class_name, prompt.colour)
    return dict.fromkeys(Fronts.__dataclass_fields__) if found is None else found.as_json()


def _has_one_front(prompt: ToyboxPrompt) -> bool:
    """Return whether a prompt names one plain object with a front and a colour, so that there is something to count."""
    alone = prompt.second is None and prompt.style is None
    return alone and prompt.class_name in CLASSES_WITH_FRONT and prompt.colour is not None


FRONTS = Metric(
    name="fronts",
    compute=_compute,
    needs_truth=True,
    rows=(
        TableRow(title="fronts", score="{fronts}"),
        TableRow(title="views that agree on a turn ({turn_deg}°)", score="{sides_agree}"),
        TableRow(title="PSNR at any turn (dB)", score="{psnr_turned}"),
        TableRow(title="pixels behind the surface they show", score="{hollow}"),
    ),
)
