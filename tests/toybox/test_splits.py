"""Streams of random numbers that never meet."""

from __future__ import annotations

import numpy as np
import pytest

from sdi_gs.toybox.splits import SPLITS, split_seed


def test_streams_of_all_splits_and_indices_share_no_draw() -> None:
    draws = [split_seed(split, index).random(500) for split in SPLITS for index in range(20)]
    assert len(np.unique(np.concatenate(draws))) == 500 * 20 * len(SPLITS)


def test_a_stream_starts_over_with_the_same_split_and_index() -> None:
    np.testing.assert_array_equal(split_seed("truth", 3).random(8), split_seed("truth", 3).random(8))


def test_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="prior, truth, val"):
        split_seed("test", 0)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="index -1"):
        split_seed("val", -1)
