"""The best seeds of a prompt, and the time that is left."""

from __future__ import annotations

import pytest
from batches import batch_of, fail, finish, start

from sdi_gs.batch.ranking import RANKINGS, best_rows, metrics_for, ranking_named, require_scores, seconds_left
from sdi_gs.batch.rows import new_row
from sdi_gs.errors import UserError
from sdi_gs.evaluation.metrics.table import metric_named
from sdi_gs.settings.run import RunConfig

JUDGE = ranking_named("judge")


def test_every_ranking_goes_by_a_metric_that_exists() -> None:
    for ranking in RANKINGS:
        metric_named(ranking.metric)
        assert ranking.value({}) is None
    with pytest.raises(UserError, match="unknown score beauty: choose one of judge"):
        ranking_named("beauty")


def test_the_judges_value_is_the_mean_of_what_it_could_judge() -> None:
    assert JUDGE.value({"judge_class": 1.0, "judge_colour": 0.5, "judge_view": 0.75}) == 0.75
    assert JUDGE.value({"judge_class": 1.0, "judge_colour": 0.5, "judge_back_as_front": 1.0}) == 0.75


def test_seeds_of_one_prompt_are_compared_with_each_other_only() -> None:
    state = batch_of("a blue robot", "a red mug", seeds=3)
    for index, value in enumerate((0.1, 0.3, 0.2)):
        finish(state, index, judge_class=value)
    finish(state, 3, judge_class=0.05)
    finish(state, 4)
    fail(state, 5, "no")
    # The same prompt under other settings is another group.
    other = new_row(index=6, line=9, prompt="a blue robot", seed=0, settings={"steps": 5})
    state.add(other)
    finish(state, 6, judge_class=0.0)
    keys = [known.row.key for known in state.rows]
    assert best_rows(state, 1, JUDGE) == {keys[1], keys[3], other.key}
    assert best_rows(state, 2, JUDGE) == {keys[1], keys[2], keys[3], other.key}


def test_of_equal_seeds_the_earlier_one_is_kept() -> None:
    state = batch_of("a blue robot", seeds=3)
    for index in (2, 1, 0):
        finish(state, index, judge_class=0.5)
    assert best_rows(state, 1, JUDGE) == {state.rows[0].row.key}


def test_time_left_is_the_median_of_finished_rows_over_the_workers() -> None:
    state = batch_of(*"abcdefgh")
    assert seconds_left(state, 2) is None
    for index, seconds in enumerate((100.0, 10.0, 12.0)):
        finish(state, index, seconds=seconds)
    fail(state, 3, "no")
    start(state, 4, step=25)
    # Three rows wait and three quarters of one are left; the first row's loading is forgotten.
    assert seconds_left(state, 2) == pytest.approx(12.0 * 3.75 / 2)
    assert seconds_left(state, 0) == pytest.approx(12.0 * 3.75)


def test_runs_that_cannot_be_scored_are_found_before_they_are_made() -> None:
    rows = [known.row for known in batch_of("a blue robot", "a corgi wearing a top hat").rows]
    toybox, other = RunConfig(), RunConfig(prior="sd21-base")
    require_scores(JUDGE, rows[:1], [toybox])
    with pytest.raises(UserError, match="line 2: --keep-best goes by judge, which cannot score .*corgi"):
        require_scores(JUDGE, rows, [toybox, toybox])
    with pytest.raises(UserError, match="line 1: .*not under sd21-base"):
        require_scores(JUDGE, rows[:1], [other])


def test_results_are_scored_by_what_applies_to_them() -> None:
    metrics = ("judge", "size")
    assert metrics_for(metrics, prompt="a blue robot", prior="toybox") == metrics
    assert metrics_for(metrics, prompt="a red background", prior="toybox") == ("size",)
    assert metrics_for(metrics, prompt="a blue robot", prior="sd21-base") == ("size",)
