"""Metric "clip-iqa": quality without a reference, by CLIP and pairs of opposite texts (arXiv 2207.12396)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sdi_gs.evaluation.metrics.metric import Metric, Subject, TableRow

ANCHORS = {
    "quality": ("Good photo.", "Bad photo."),
    "sharpness": ("Sharp photo.", "Blurry photo."),
    "real": ("Real photo.", "Abstract photo."),
}
"""The three of SDI's first table, in torchmetrics' words."""
SHARPENING = 100.0
"""Of the softmax: CLIP's own logit scale."""


def iqa(
    pictures: Tensor,  # [V, D] unit
    anchors: Tensor,  # [2 * len(ANCHORS), D] unit
) -> Tensor:  # [V, len(ANCHORS)]
    """Return the probability of each anchor's first text, for every picture."""
    logits = SHARPENING * pictures @ anchors.T
    return torch.softmax(logits.reshape(len(pictures), -1, 2), dim=-1)[..., 0]


def _compute(subject: Subject) -> dict[str, Any]:
    anchors = subject.networks.clip("clip-iqa").texts([text for pair in ANCHORS.values() for text in pair])
    values = iqa(subject.embeddings("clip-iqa"), anchors).mean(dim=0).tolist()
    return {f"clip_iqa_{name}": value for name, value in zip(ANCHORS, values, strict=True)}


CLIP_IQA = Metric(
    name="clip-iqa",
    compute=_compute,
    why_not=lambda subject: subject.networks.why_not("clip-iqa"),
    rows=tuple(TableRow(title=f"CLIP-IQA, {name}", score=f"{{clip_iqa_{name}}}") for name in ANCHORS),
)
