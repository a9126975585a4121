"""The table of metrics; a new metric is a new module and a row here."""

from __future__ import annotations

from sdi_gs.evaluation.metrics.ceiling import CEILING
from sdi_gs.evaluation.metrics.cost import COST
from sdi_gs.evaluation.metrics.judge import JUDGE
from sdi_gs.evaluation.metrics.metric import Metric
from sdi_gs.evaluation.metrics.objects import OBJECTS
from sdi_gs.evaluation.metrics.size import SIZE
from sdi_gs.evaluation.metrics.truth import TRUTH
from sdi_gs.evaluation.metrics.views import VIEWS
from sdi_gs.settings.named import row_named

METRICS: tuple[Metric, ...] = (TRUTH, JUDGE, CEILING, OBJECTS, SIZE, VIEWS, COST)
"""Every metric, in the order of the JSON keys and of the printed table."""


def metric_named(name: str) -> Metric:
    """Return a metric by its name; UserError for an unknown one."""
    return row_named(METRICS, name, what="metric")
