"""Metric "size": the number of Gaussians."""

from __future__ import annotations

from typing import Any

from sdi_gs.evaluation.metrics.metric import Metric, Subject, TableRow


def _compute(subject: Subject) -> dict[str, Any]:
    return {"n_gaussians": subject.representation.num_points}


SIZE = Metric(name="size", compute=_compute, rows=(TableRow(title="Gaussians", score="{n_gaussians}"),))
