"""The views that the scores are computed from."""

from __future__ import annotations

from typing import Any

from sdi_gs.evaluation.metrics.metric import Metric, Subject


def _compute(subject: Subject) -> dict[str, Any]:
    return {"image_size": subject.image_size, "num_views": len(subject.cameras)}


VIEWS = Metric(name="views", compute=_compute, rows=())
