"""Metric "janus": whether an object has its face on several sides: front, right, back and left compared.

CLIP compares the pictures; where it is not here and the prompt is toybox's, toybox's judge looks for faces.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from sdi_gs.cameras import VIEW_WORDS
from sdi_gs.evaluation.metrics.metric import Metric, Subject, TableRow
from sdi_gs.evaluation.protocol_views import cameras_of, shown_views
from sdi_gs.pictures.views import render_views
from sdi_gs.settings.protocols import ORBIT, ViewProtocol, ring_azimuths
from sdi_gs.toybox.judge import JUDGE_IMAGE_SIZE, load_judge
from sdi_gs.toybox.objects import SIDES_ALIKE
from sdi_gs.toybox.views import toybox_cameras

SIDES = ring_azimuths(4)
"""Azimuths of the four sides, the front first."""


def _why_not(subject: Subject) -> str | None:
    reason = subject.networks.why_not("clip")
    return None if _is_judged(subject) else reason


def _is_judged(subject: Subject) -> bool:
    """Return whether toybox's judge can look for faces: there is one object, and it has a front."""
    toybox = subject.toybox
    if toybox is None or toybox.second is not None:
        return False
    return toybox.class_name is not None and toybox.class_name not in SIDES_ALIKE


def _compute(subject: Subject) -> dict[str, Any]:
    values: dict[str, Any] = {"janus_front_back": None, "janus_matrix": None, "janus_judge": None}
    if subject.networks.why_not("clip") is None:
        four = _four_sides(subject.protocol)
        cameras = cameras_of(four, subject.extent)
        pictures = shown_views(subject.representation, cameras, four).rgb
        sides = subject.networks.clip("clip").pictures(pictures)
        cosines = (sides @ sides.T).tolist()
        values |= {"janus_front_back": cosines[0][2], "janus_matrix": cosines}
    if _is_judged(subject):
        cameras = toybox_cameras(torch.tensor(SIDES), torch.full((len(SIDES),), 15.0), size=JUDGE_IMAGE_SIZE)
        seen = load_judge()(render_views(subject.representation, cameras).rgb).views[1:]
        values["janus_judge"] = (seen == VIEW_WORDS.index("front view")).float().mean().item()
    return values


def _four_sides(protocol: ViewProtocol) -> ViewProtocol:
    """Return the protocol with a picture of each side; those without a ring have the default's."""
    ring = protocol if protocol.placement == "ring" else ORBIT
    return replace(ring, azimuths_deg=SIDES, elevation_deg=ORBIT.elevation_deg)


JANUS = Metric(
    name="janus",
    compute=_compute,
    why_not=_why_not,
    rows=(
        TableRow(title="front and back alike (CLIP cosine)", score="{janus_front_back}"),
        TableRow(title="judge: other sides taken for fronts", score="{janus_judge}"),
    ),
)
