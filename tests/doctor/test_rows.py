"""Rows keep their limits, and become JSON whatever their figures are."""

from __future__ import annotations

import json

import pytest

from sdi_gs.doctor.rows import at_least, at_most, failed, shown, skipped, worst

NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(("figure", "verdict"), [(1.0, "pass"), (1.01, "fail"), (NAN, "fail"), (INFINITY, "fail")])
def test_at_most_fails_above_its_limit_and_without_a_number(figure: float, verdict: str) -> None:
    assert at_most("it", figure, 1.0).verdict == verdict


@pytest.mark.parametrize(("figure", "verdict"), [(1.0, "pass"), (0.99, "fail"), (NAN, "fail"), (-INFINITY, "fail")])
def test_at_least_fails_below_its_limit_and_without_a_number(figure: float, verdict: str) -> None:
    assert at_least("it", figure, 1.0).verdict == verdict


def test_the_worst_of_the_cases_decides_and_is_named() -> None:
    row = worst("it", {"a": 0.1, "b": 0.7, "c": 0.2}, 0.5)
    assert (row.verdict, row.figure, row.note) == ("fail", 0.7, "worst: b")
    assert worst("it", {"a": 9.0, "b": NAN}, 10.0).verdict == "fail"
    assert worst("it", {"a": 0.0, "b": 0.0}, 0.5).note == "in all 2 cases"


def test_every_kind_of_row_is_strict_json() -> None:
    rows = [at_most("a", NAN, 1.0), worst("b", {"c": INFINITY}, 1.0), shown("d", 1.0, unit="ms"), skipped("e", "why")]
    text = json.dumps([row.as_json() for row in [*rows, failed("f", "why")]], allow_nan=False)
    assert [row["verdict"] for row in json.loads(text)] == ["fail", "fail", "shown", "skipped", "fail"]
