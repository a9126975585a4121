"""Toybox's random streams, separate for training data, truth, tuning and the judge, so that they never overlap."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

Split = Literal["prior", "truth", "val", "judge"]
SPLITS: tuple[Split, ...] = get_args(Split)

_ENTROPY = 20241126


def split_seed(split: Split, index: int) -> np.random.Generator:
    """Return an independent stream per split and index.

    The splits are "prior" for training, "truth" for scores, "val" for tuning, and "judge" for the judge's training.

    Raises ValueError for an unknown split or a negative index.
    """
    if split not in SPLITS or index < 0:
        raise ValueError(f"no stream for split {split!r} and index {index}; splits are {', '.join(SPLITS)}")
    return np.random.default_rng(np.random.SeedSequence(_ENTROPY, spawn_key=(SPLITS.index(split), index)))
