"""Where toybox's random numbers come from, so that what is learned from and what is judged by never meet."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

Split = Literal["prior", "truth", "val", "judge"]
SPLITS: tuple[Split, ...] = get_args(Split)

_ENTROPY = 20241126


def split_seed(split: Split, index: int) -> np.random.Generator:
    """An independent stream per split and index: "prior" to learn from, "truth" to score by, "val" to tune by,
    "judge" for the classifier that judges pictures.

    Raises ValueError for an unknown split or a negative index.
    """
    if split not in SPLITS or index < 0:
        raise ValueError(f"no stream for split {split!r} and index {index}; splits are {', '.join(SPLITS)}")
    return np.random.default_rng(np.random.SeedSequence(_ENTROPY, spawn_key=(SPLITS.index(split), index)))
