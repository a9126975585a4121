"""Metric "r-precision": the share of pictures whose own prompt is the best of a list, by CLIP (R-precision@1)."""

from __future__ import annotations

from typing import Any

from sdi_gs.evaluation.metrics.metric import Metric, Subject, TableRow


def _why_not(subject: Subject) -> str | None:
    if len(subject.prompts) < 2:
        return "there are no other prompts to choose among: add --prompts LIST, or score a batch of several"
    return subject.networks.why_not("clip")


def _compute(subject: Subject) -> dict[str, Any]:
    networks = subject.networks
    texts = networks.clip("clip").texts([networks.text(prompt) for prompt in subject.prompts])
    best = (subject.embeddings("clip") @ texts.T).argmax(dim=1)
    right = (best == subject.prompts.index(subject.prompt)).float().mean().item()
    return {"r_precision": right, "num_prompts": len(subject.prompts)}


R_PRECISION = Metric(
    name="r-precision",
    compute=_compute,
    why_not=_why_not,
    rows=(TableRow(title="R-precision@1 of {num_prompts} prompts", score="{r_precision}"),),
)
