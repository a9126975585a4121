"""Which of a prompt's seeds are best, by a score; and how long the rest of a batch will take."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from sdi_gs.batch.rows import Row
from sdi_gs.batch.state import BatchState, RowState
from sdi_gs.errors import UserError
from sdi_gs.settings.named import row_named
from sdi_gs.settings.run import RunConfig

MOVING = ("waiting", "running", "stopped", "lost")
"""Of rows that are still to be made."""


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """One number by which runs of the same prompt are put in order."""

    name: str
    """Value of ``--score``."""
    metric: str
    """The metric that computes its scores (``sdi_gs.evaluation.metrics.table``)."""
    value: Callable[[Mapping[str, float]], float | None]
    """Return the number, higher for better, from a run's scores; None without them."""


def ranking_named(name: str) -> Ranking:
    """Return a ranking by its name; UserError for an unknown one."""
    return row_named(RANKINGS, name, what="score")


def _mean_of(*keys: str) -> Callable[[Mapping[str, float]], float | None]:
    """Return the mean of the scores that a run has: an object without a front has none for its sides."""

    def value(scores: Mapping[str, float]) -> float | None:
        found = [scores[key] for key in keys if key in scores]
        return statistics.fmean(found) if found else None

    return value


RANKINGS: tuple[Ranking, ...] = (
    Ranking(name="judge", metric="judge", value=_mean_of("judge_class", "judge_colour", "judge_view")),
    Ranking(name="truth", metric="truth", value=_mean_of("psnr_best")),
)
"""Every ranking; a new one is a row here, over a metric of the table of metrics."""


def metrics_for(metrics: Iterable[str], *, prompt: str, prior: str) -> tuple[str, ...]:
    """Return those of the metrics that can score a run: those that need a truth only under toybox, for its prompts."""
    return tuple(name for name in metrics if _why_not(name, prompt, prior) is None)


def require_scores(ranking: Ranking, rows: Iterable[Row], configs: Iterable[RunConfig]) -> None:
    """Raise UserError for the first row that the ranking's metric cannot score: now, and not after its run."""
    for row, config in zip(rows, configs, strict=True):
        reason = _why_not(ranking.metric, row.prompt, config.prior)
        if reason is not None:
            raise UserError(
                f"line {row.line}: --keep-best goes by {ranking.name}, which cannot score this run ({reason}): leave "
                "--keep-best out, or make a list of toybox prompts"
            )


def _why_not(metric: str, prompt: str, prior: str) -> str | None:
    """Return why a metric cannot score a run; None if it can."""
    # Imports torch, which showing a batch does not need.
    from sdi_gs.evaluation.metrics.table import metric_named
    from sdi_gs.evaluation.metrics.truth import toybox_prompt
    from sdi_gs.priors.catalog import is_instrument

    if not metric_named(metric).needs_truth:
        return None
    if not is_instrument(prior):
        return f"truth exists only under toybox, not under {prior}"
    try:
        toybox_prompt(prompt)
    except UserError as error:
        return str(error)
    return None


def best_rows(state: BatchState, keep: int, ranking: Ranking) -> frozenset[str]:
    """Return the keys of the ``keep`` best finished rows among those that differ in nothing but their seeds.

    Of equal ones the earlier one is the better; a run without the score is never among the best.
    """
    groups: dict[str, list[tuple[float, str]]] = {}
    for known in state.rows:
        value = ranking.value(known.scores)
        if known.status == "finished" and value is not None:
            group = json.dumps([known.row.prompt, known.row.settings], sort_keys=True)
            groups.setdefault(group, []).append((value, known.row.key))
    # Sorting keeps the order of equals.
    ordered = (sorted(members, key=lambda member: -member[0]) for members in groups.values())
    return frozenset(key for members in ordered for _, key in members[:keep])


def seconds_left(state: BatchState, num_workers: int) -> float | None:
    """Estimate the seconds until all rows are made, by the median of those that are; None before the first one.

    The first row of a worker loads the prior and compiles, which the median forgets once there are a few.
    """
    rows = state.rows
    done = [known.seconds for known in rows if known.status == "finished" and known.seconds]
    if not done:
        return None
    left = sum(1.0 - _share_done(known) for known in rows if known.status in MOVING)
    return statistics.median(done) * left / max(num_workers, 1)


def _share_done(known: RowState) -> float:
    return min(known.step / known.steps, 1.0) if known.steps else 0.0
