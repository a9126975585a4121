"""The share of time that the viewer may take; clocks are given, never read."""

from __future__ import annotations

import pytest

from sdi_gs.viewer.budget import IDLE_SHARE, LARGEST_SAVING, Budget, shares


def busy_seconds(rate: float, job: float, *, total: float) -> float:
    """Seconds of jobs that a budget lets through when there is always one waiting."""
    budget, now, busy = Budget(rate, now=0.0), 0.0, 0.0
    while now < total:
        wait = budget.wait_seconds(now=now)
        if wait > 0.0:
            now += wait + 1e-9
            continue
        now += job
        busy += job
        budget.spend(job, now=now)
    return busy


@pytest.mark.parametrize("rate", [0.04, 0.26, 0.7])
@pytest.mark.parametrize("job", [0.003, 0.05, 2.0])
def test_jobs_take_their_rate_of_the_time_however_long_each_is(rate: float, job: float) -> None:
    assert busy_seconds(rate, job, total=1000.0) == pytest.approx(1000.0 * rate, abs=2 * job + LARGEST_SAVING)


@pytest.mark.parametrize("training", [0.3, 0.5, 0.7, 0.9, 0.95])
def test_all_jobs_together_leave_training_its_share(training: float) -> None:
    interactive, idle = shares(training)
    assert min(interactive, idle) > 0.0
    assert interactive + idle <= 1.0 - training
    assert idle <= IDLE_SHARE


def test_an_idle_hour_does_not_pay_for_a_rush() -> None:
    budget = Budget(0.3, now=0.0)
    budget.spend(1.0, now=3600.0)
    assert budget.wait_seconds(now=3600.0) == pytest.approx((1.0 - LARGEST_SAVING) / 0.3 - 1.0)


def test_debts_are_forgiven_when_nothing_trains() -> None:
    budget = Budget(0.1, now=0.0)
    budget.spend(50.0, now=0.0)
    assert budget.wait_seconds(now=0.0) == pytest.approx(500.0)
    budget.forgive(now=0.0)
    assert budget.wait_seconds(now=0.0) == 0.0


def test_a_new_rate_counts_from_now_on() -> None:
    budget = Budget(0.1, now=0.0)
    budget.spend(1.0, now=0.0)
    budget.set_rate(0.5, now=5.0)
    assert budget.wait_seconds(now=5.0) == pytest.approx(1.0)
