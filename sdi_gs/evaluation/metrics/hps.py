"""Metric "hps": Human Preference Score 2 of the pictures under the prompt (arXiv 2306.09341)."""

from __future__ import annotations

from typing import Any

from sdi_gs.evaluation.metrics.metric import Metric, Subject, TableRow


def _compute(subject: Subject) -> dict[str, Any]:
    text = subject.networks.clip("hps").texts([subject.networks.text(subject.prompt)])
    # hpsv2 gives the cosine itself; its leaderboard a hundred times that.
    return {"hps": (subject.embeddings("hps") @ text[0]).mean().item()}


HPS = Metric(
    name="hps",
    compute=_compute,
    why_not=lambda subject: subject.networks.why_not("hps"),
    rows=(TableRow(title="HPS, cosine", score="{hps}"),),
)
