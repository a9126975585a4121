"""Means of scores over scenes, and their spread over prompts and over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sdi_gs.evaluation.many import Scored


@dataclass(frozen=True, kw_only=True)
class Aggregate:
    """One score over all scenes."""

    mean: float
    """Mean over the prompts of the mean over their seeds; failed runs count as blank pictures."""
    mean_finished: float | None
    """The same over the runs that did not fail; None where all failed."""
    std_prompts: float | None
    """Standard deviation of the prompts' means; None for one prompt."""
    std_seeds: float | None
    """Root mean square, over the prompts, of the standard deviation over their seeds; None without several seeds."""
    num_prompts: int
    """Prompts that have this score."""
    num_scenes: int
    """Scenes that have this score."""


def aggregates(scored: Sequence[Scored]) -> dict[str, Aggregate]:
    """Return the aggregate of every score that is a number or a yes-or-no, in the order of the scores."""
    keys = dict.fromkeys(key for one in scored for key in one.evaluation.scores)
    found = {key: _aggregate(key, scored) for key in keys}
    return {key: value for key, value in found.items() if value is not None}


def as_json(found: Mapping[str, Aggregate]) -> dict[str, Any]:
    """Return plain values."""
    return {key: asdict(value) for key, value in found.items()}


def _aggregate(key: str, scored: Sequence[Scored]) -> Aggregate | None:
    everywhere = _by_prompt(key, scored)
    if not everywhere:
        return None
    finished = _by_prompt(key, [one for one in scored if one.failure is None])
    means = [statistics.fmean(values) for values in everywhere.values()]
    spreads = [statistics.variance(values) for values in everywhere.values() if len(values) > 1]
    return Aggregate(
        mean=statistics.fmean(means),
        mean_finished=statistics.fmean(map(statistics.fmean, finished.values())) if finished else None,
        std_prompts=statistics.stdev(means) if len(means) > 1 else None,
        std_seeds=math.sqrt(statistics.fmean(spreads)) if spreads else None,
        num_prompts=len(means),
        num_scenes=sum(map(len, everywhere.values())),
    )


def _by_prompt(key: str, scored: Iterable[Scored]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for one in scored:
        value = one.evaluation.scores.get(key)
        if isinstance(value, int | float) and math.isfinite(value):
            found.setdefault(one.evaluation.prompt, []).append(float(value))
    return found
