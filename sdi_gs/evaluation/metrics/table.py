"""The table of metrics; a new metric is a new module and a row here."""

from __future__ import annotations

from sdi_gs.evaluation.metrics.ceiling import CEILING
from sdi_gs.evaluation.metrics.clip_iqa import CLIP_IQA
from sdi_gs.evaluation.metrics.clip_score import CLIP_SCORE
from sdi_gs.evaluation.metrics.cost import COST
from sdi_gs.evaluation.metrics.divergence import DIVERGENCE
from sdi_gs.evaluation.metrics.fronts import FRONTS
from sdi_gs.evaluation.metrics.hps import HPS
from sdi_gs.evaluation.metrics.image_reward import IMAGE_REWARD
from sdi_gs.evaluation.metrics.janus import JANUS
from sdi_gs.evaluation.metrics.judge import JUDGE
from sdi_gs.evaluation.metrics.metric import Metric
from sdi_gs.evaluation.metrics.objects import OBJECTS
from sdi_gs.evaluation.metrics.r_precision import R_PRECISION
from sdi_gs.evaluation.metrics.shape import SHAPE
from sdi_gs.evaluation.metrics.size import SIZE
from sdi_gs.evaluation.metrics.truth import TRUTH
from sdi_gs.evaluation.metrics.views import VIEWS
from sdi_gs.settings.named import row_named

METRICS: tuple[Metric, ...] = (
    TRUTH,
    JUDGE,
    FRONTS,
    CEILING,
    OBJECTS,
    SIZE,
    VIEWS,
    COST,
    DIVERGENCE,
    SHAPE,
    JANUS,
    CLIP_SCORE,
    R_PRECISION,
    IMAGE_REWARD,
    CLIP_IQA,
    HPS,
)
"""Every metric, in the order of the JSON keys and of the printed table."""


def metric_named(name: str) -> Metric:
    """Return a metric by its name; UserError for an unknown one."""
    return row_named(METRICS, name, what="metric")
