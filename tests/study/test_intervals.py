"""Bootstrap intervals against what the resampling's own moments must be."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sdi_gs.study.intervals import Interval, bootstrap, holm, resampled_means, share_interval

NORMAL_975 = 1.959964


def table(prompts: int = 60, seeds: int = 4, between: float = 1.0, within: float = 0.5) -> np.ndarray:
    rng = np.random.default_rng(3)
    return 2.0 + between * rng.normal(size=(prompts, 1)) + within * rng.normal(size=(prompts, seeds))


def variance_of_means(values: np.ndarray) -> float:
    """In closed form: a resampled mean is one of P draws of a prompt, each the mean of S draws of its seeds."""
    prompts, seeds = values.shape
    return (values.mean(axis=1).var() + values.var(axis=1).mean() / seeds) / prompts


@pytest.mark.parametrize(("between", "within"), [(1.0, 0.5), (0.0, 1.0), (1.0, 0.0)])
def test_the_spread_of_the_means_is_that_of_two_stage_sampling(between: float, within: float) -> None:
    values = table(between=between, within=within)
    means = resampled_means(values, count=40_000, rng=np.random.default_rng(0))
    assert means.mean() == pytest.approx(values.mean(), abs=4e-3)
    # The sample variance of 40 000 normal draws has a relative deviation of 0.7 %.
    assert means.var() == pytest.approx(variance_of_means(values), rel=0.03)


def test_with_one_run_a_prompt_it_is_the_plain_bootstrap() -> None:
    values = table(seeds=1)
    means = resampled_means(values, count=40_000, rng=np.random.default_rng(0))
    assert means.var() == pytest.approx(values.var() / len(values), rel=0.03)


def test_the_interval_of_many_prompts_is_the_normal_one() -> None:
    values = table(prompts=400)
    found = bootstrap(values, count=20_000)
    reach = NORMAL_975 * variance_of_means(values) ** 0.5
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - reach, abs=0.05 * reach)
    assert found.high == pytest.approx(values.mean() + reach, abs=0.05 * reach)


def test_a_prompt_with_fewer_seeds_counts_like_the_others() -> None:
    values = table(prompts=50, seeds=3)
    values[::2, 1:] = np.nan
    means = resampled_means(values, count=40_000, rng=np.random.default_rng(0))
    ones, threes = values[::2, 0], values[1::2]
    by_prompt = np.concatenate([ones, threes.mean(axis=1)])
    # A prompt's single seed does not vary within it; every second prompt has three that do.
    within = 0.5 * threes.var(axis=1).mean() / 3
    assert bootstrap(values).mean == pytest.approx(by_prompt.mean())
    assert means.mean() == pytest.approx(by_prompt.mean(), abs=4e-3)
    assert means.var() == pytest.approx((by_prompt.var() + within) / 50, rel=0.03)


def test_an_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(200):
        values = rng.normal(size=(40, 1)) + 0.5 * rng.normal(size=(40, 2))
        found = bootstrap(values, count=800)
        covered += found.low <= 0.0 <= found.high
    # 95 % of 200 and four standard deviations either way.
    assert 177 <= covered <= 200


def test_equal_runs_leave_no_doubt_and_the_same_seed_no_noise() -> None:
    assert bootstrap(np.full((3, 2), 0.5)) == Interval(mean=0.5, low=0.5, high=0.5, p=0.25)
    assert bootstrap(table()) == bootstrap(table())
    assert bootstrap(table()) != bootstrap(table(), seed=1)


@pytest.mark.parametrize(("low", "high", "excludes"), [(0.1, 0.2, True), (-0.2, -0.1, True), (-0.1, 0.2, False)])
def test_a_difference_is_one_where_its_interval_excludes_zero(low: float, high: float, excludes: bool) -> None:
    assert Interval(mean=0.5 * (low + high), low=low, high=high).excludes_zero == excludes


def test_one_prompt_has_no_interval_over_prompts_however_many_seeds() -> None:
    found = bootstrap(np.array([[3.0, 4.0, 5.0]]))
    assert found.mean == 4.0 and found.low > 0.0
    assert not found.excludes_zero
    assert bootstrap(np.array([[3.0], [4.0]])).excludes_zero


@pytest.mark.parametrize("values", [np.zeros((0, 2)), np.zeros(3), np.array([[np.nan, 1.0]]), np.array([[np.inf]])])
def test_nothing_is_averaged_out_of_nothing(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="prompts x seeds"):
        bootstrap(values)


def test_a_p_value_is_that_of_the_normal_and_no_smaller_than_the_signs_of_the_prompts_allow() -> None:
    rng = np.random.default_rng(7)
    values = rng.normal(size=(400, 1))
    values += 0.1 - values.mean()
    error = values.std() / 20.0
    expected = math.erfc(0.1 / error / math.sqrt(2.0))
    assert bootstrap(values, count=40_000).p == pytest.approx(expected, rel=0.1)
    assert bootstrap(np.full((3, 1), 9.0)).p == 0.25
    assert bootstrap(-np.full((3, 1), 9.0)).p == 0.25
    assert bootstrap(np.full((30, 1), 9.0)).p == pytest.approx(2 / 10_001)


def test_holm_corrects_the_smallest_most_and_keeps_the_order() -> None:
    # By hand: 4 x 0.01, 3 x 0.02, 2 x 0.04 (0.08), and 0.03 between them 2 x 0.03 is 0.06, at least the one before.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(("count", "runs"), [(0, 120), (1, 30), (17, 24), (24, 24)])
def test_the_interval_of_a_share_is_scipys(count: int, runs: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(count, runs).proportion_ci(method="wilson")
    assert share_interval(count, runs) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert share_interval(count, runs)[0] <= count / runs <= share_interval(count, runs)[1]
