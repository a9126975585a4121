"""Metric "cost": steps, time and peak memory of the run that made the scene."""

from __future__ import annotations

from typing import Any

from sdi_gs.evaluation.metrics.metric import Metric, Subject
from sdi_gs.runs.finish import read_summary


def _compute(subject: Subject) -> dict[str, Any]:
    run = subject.run
    summary = (read_summary(run.folder) if run is not None else None) or {}
    return {
        "step": run.step if run is not None else None,
        "wall_seconds": summary.get("wall_seconds"),
        "peak_rss_mb": summary.get("peak_rss_mb"),
    }


COST = Metric(name="cost", compute=_compute, rows=())
