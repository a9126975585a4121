"""The table of metrics; a new metric is a new module and a row here."""

from __future__ import annotations

from sdi_gs.errors import UserError
from sdi_gs.evaluation.metrics.ceiling import CEILING
from sdi_gs.evaluation.metrics.cost import COST
from sdi_gs.evaluation.metrics.judge import JUDGE
from sdi_gs.evaluation.metrics.metric import Metric
from sdi_gs.evaluation.metrics.size import SIZE
from sdi_gs.evaluation.metrics.truth import TRUTH
from sdi_gs.evaluation.metrics.views import VIEWS

METRICS: tuple[Metric, ...] = (TRUTH, JUDGE, CEILING, SIZE, VIEWS, COST)
"""Every metric, in the order of the JSON keys and of the printed table."""


def metric_named(name: str) -> Metric:
    """Return a metric by its name; UserError for an unknown one."""
    for metric in METRICS:
        if metric.name == name:
            return metric
    raise UserError(f"there is no metric {name}: the known ones are {', '.join(metric.name for metric in METRICS)}")
