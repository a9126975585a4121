"""Bootstrap intervals of means over prompts and seeds.

Runs of one prompt are more alike than runs of two, so they are resampled in two stages: prompts with replacement, then
seeds with replacement within each of them. With plain resampling of all runs the intervals would be too narrow.

Letters: P prompts, S seeds, R resamplings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RESAMPLINGS = 10_000
LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean and its interval over prompts and seeds."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Return whether the interval excludes 0."""
        return self.low > 0.0 or self.high < 0.0


def resampled_means(
    values: np.ndarray,  # [P, S]
    *,
    count: int,
    rng: np.random.Generator,
) -> np.ndarray:  # [R]
    """Return the means of two-stage resamplings."""
    prompts, seeds = values.shape
    chosen = rng.integers(prompts, size=(count, prompts, 1))
    drawn = rng.integers(seeds, size=(count, prompts, seeds))
    return values[chosen, drawn].mean(axis=(1, 2))


def bootstrap(
    values: np.ndarray,  # [P, S]
    *,
    count: int = RESAMPLINGS,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """Return the mean with its percentile interval; raises ValueError if there is nothing to average.

    Two tables of the same shape are resampled alike, so the difference of paired runs is the bootstrap of their
    differences.
    """
    if values.ndim != 2 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"need finite values of prompts x seeds, got shape {values.shape}")
    means = resampled_means(values, count=count, rng=np.random.default_rng(seed))
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    return Interval(mean=float(values.mean()), low=float(low), high=float(high))
