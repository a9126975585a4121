"""Bootstrap intervals of means over prompts and seeds.

Runs of one prompt are more alike than runs of two, so they are resampled in two stages: prompts with replacement, then
seeds with replacement within each of them. With plain resampling of all runs the intervals would be too narrow.

Letters: P prompts, S seeds, R resamplings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

RESAMPLINGS = 10_000
LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean and its interval over prompts and seeds."""

    mean: float
    low: float
    high: float
    p: float = 1.0
    """Two-sided p-value that the mean is 0, from the same resamplings: twice the share on the other side of 0."""
    single: bool = False
    """Whether it is of one prompt, which says nothing of the spread over prompts."""

    @property
    def excludes_zero(self) -> bool:
        """Return whether the interval excludes 0; that of a single prompt is none."""
        return not self.single and (self.low > 0.0 or self.high < 0.0)


def resampled_means(
    values: np.ndarray,  # [P, S], NaN after a prompt's last seed
    *,
    count: int,
    rng: np.random.Generator,
) -> np.ndarray:  # [R]
    """Return the means of two-stage resamplings; every prompt counts alike, however many seeds it has."""
    prompts, seeds = values.shape
    given = (~np.isnan(values)).sum(axis=1)
    chosen = rng.integers(prompts, size=(count, prompts))
    available = given[chosen][..., None]
    drawn = np.floor(rng.random((count, prompts, seeds)) * available).astype(int)
    taken = np.where(np.arange(seeds) < available, values[chosen[..., None], drawn], np.nan)
    return np.nanmean(taken, axis=2).mean(axis=1)


def bootstrap(
    values: np.ndarray,  # [P, S], NaN after a prompt's last seed
    *,
    count: int = RESAMPLINGS,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """Return the mean over prompts with its percentile interval.

    Two tables of the same shape are resampled alike, so the difference of paired runs is the bootstrap of their
    differences. Raises ValueError if there is nothing to average.
    """
    if values.ndim != 2 or values.size == 0 or not _filled_from_the_left(values):
        raise ValueError(f"need finite values of prompts x seeds, got shape {values.shape}")
    means = resampled_means(values, count=count, rng=np.random.default_rng(seed))
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    # One is added to either count: no number of resamplings shows that a difference is certain.
    beyond = min(int((means <= 0.0).sum()), int((means >= 0.0).sum()))
    return Interval(
        mean=float(np.nanmean(values, axis=1).mean()),
        low=float(low),
        high=float(high),
        # Nor do the signs of a few prompts: of P that all agree, 2 in 2^P would by chance.
        p=min(1.0, max(2.0 * (beyond + 1) / (count + 1), 2.0 ** (1 - len(values)))),
        single=len(values) == 1,
    )


def share_interval(count: int, runs: int, *, level: float = LEVEL) -> tuple[float, float]:
    """Return Wilson's interval of the share of runs that have something; runs count as independent.

    Resampling cannot bound a share of which no run has any, or every one.
    """
    z = NormalDist().inv_cdf(0.5 + level / 2)
    middle = (count + z * z / 2) / (runs + z * z)
    reach = z / (runs + z * z) * math.sqrt(count * (runs - count) / runs + z * z / 4)
    return max(middle - reach, 0.0), min(middle + reach, 1.0)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected by Holm's method for the number of them, in their order.

    Whoever calls a difference one whose corrected value is below 0.05 is wrong about any of them in at most 5 % of
    such families.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def _filled_from_the_left(
    values: np.ndarray,  # [P, S]
) -> bool:
    """Return whether every prompt has a value, all are finite, and none comes after a gap."""
    missing = np.isnan(values)
    gaps = (np.diff(missing.astype(int), axis=1) < 0).any()
    return not (missing[:, 0].any() or gaps or np.isinf(values).any())
