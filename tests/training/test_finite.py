"""The check that all numbers of a step are finite."""

from __future__ import annotations

import math

import pytest
import torch

from sdi_gs.errors import NonFiniteError
from sdi_gs.training.finite import finite_values


def test_scalars_are_returned_as_numbers() -> None:
    values = {"a": torch.tensor(2.5), "b": torch.tensor(-1.0)}
    assert finite_values(values, {"x": torch.ones(3), "empty": torch.empty(0)}, where="step 1") == {"a": 2.5, "b": -1.0}


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_the_first_broken_tensor_is_named(broken: float) -> None:
    second, third = torch.ones(4, 5), torch.ones(3)
    second[2, 3] = third[1] = broken
    watched = {"first": torch.ones(2), "second": second, "third": third}
    with pytest.raises(NonFiniteError, match="^step 4: non-finite second; the state"):
        finite_values({"loss": torch.tensor(0.0)}, watched, where="step 4")


def test_infinities_that_cancel_are_found() -> None:
    with pytest.raises(NonFiniteError, match="non-finite x"):
        finite_values({}, {"x": torch.tensor([math.inf, -math.inf, 1.0])}, where="step 1")


def test_huge_numbers_whose_sum_overflows_are_finite() -> None:
    huge = torch.full((10,), 3e38)
    assert finite_values({"a": torch.tensor(1.0)}, {"x": huge, "y": -huge}, where="step 1") == {"a": 1.0}
    huge[3] = math.nan
    with pytest.raises(NonFiniteError, match="non-finite y"):
        finite_values({}, {"x": huge.nan_to_num(0.0), "y": huge}, where="step 1")
