"""Metric "clip": how well the pictures fit the prompt, by CLIP."""

from __future__ import annotations

from typing import Any

from sdi_gs.evaluation.metrics.metric import Metric, Subject, TableRow


def _compute(subject: Subject) -> dict[str, Any]:
    text = subject.networks.clip("clip").texts([subject.networks.text(subject.prompt)])
    cosine = (subject.embeddings("clip") @ text[0]).mean().item()
    # torchmetrics' CLIPScore: a hundred times the mean cosine, at least 0.
    return {"clip_cosine": cosine, "clip_score": max(100.0 * cosine, 0.0)}


CLIP_SCORE = Metric(
    name="clip",
    compute=_compute,
    why_not=lambda subject: subject.networks.why_not("clip"),
    rows=(TableRow(title="CLIP score, 0 to 100", score="{clip_score}"),),
)
