"""Batches in groups: which rows, and what is kept for the backward pass."""

from __future__ import annotations

import torch
from torch import Tensor

from sdi_gs.row_groups import recomputed, row_groups


def test_groups_cover_all_rows_once_and_in_order() -> None:
    assert row_groups(5, 2) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert row_groups(4, 4) == row_groups(4, 0) == row_groups(4, 9) == [slice(0, 4)]
    assert row_groups(0, 0) == []


def test_rows_that_belong_together_share_a_group() -> None:
    assert row_groups(8, 1, together=4) == row_groups(8, 5, together=4) == [slice(0, 4), slice(4, 8)]
    assert row_groups(12, 9, together=4) == [slice(0, 8), slice(8, 12)]
    assert row_groups(8, 0, together=4) == [slice(0, 8)]


def test_what_is_recomputed_has_the_same_gradient_and_keeps_its_input_alone() -> None:
    calls: list[bool] = []

    def function(values: Tensor, *, power: int) -> dict[str, Tensor]:
        calls.append(True)
        return {"result": values.exp().sin() ** power}

    plain, again = (torch.linspace(0.0, 1.0, 7, dtype=torch.float64).requires_grad_() for _ in range(2))
    function(plain, power=3)["result"].sum().backward()
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        result = recomputed(function, again, power=3)["result"]
    assert [id(tensor) for tensor in kept] == [id(again)]
    result.sum().backward()
    assert plain.grad is not None
    assert again.grad is not None
    assert torch.equal(plain.grad, again.grad)
    assert len(calls) == 3
