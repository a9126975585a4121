"""The encoding that keeps its points alone, beside the reference that autograd follows."""

from __future__ import annotations

import pytest
import torch
from memory_counting.meter import StepMeter
from torch import Tensor

from sdi_gs.representations.ngp import linear_encoding
from sdi_gs.representations.ngp.hash_grid import encode, grid_layout
from sdi_gs.representations.ngp.linear_encoding import encode_linear
from sdi_gs.settings.ngp import HashGridConfig

# Level 0 is dense, the others are hashed.
LAYOUT = grid_layout(HashGridConfig(num_levels=3, initial_levels=1, log2_table_size=13))


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("with_jacobian", [False, True])
@pytest.mark.parametrize(("count", "num_levels"), [(100, 3), (101, 2), (1, 3), (0, 3)])
def test_values_and_gradients_are_the_references(
    count: int, num_levels: int, with_jacobian: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Several goes, the last of which is not full.
    monkeypatch.setattr(linear_encoding, "_POINTS_AT_ONCE", 32)
    points = torch.rand((count, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    table = drawn(LAYOUT.num_entries, 2, seed=1).requires_grad_()
    results = []
    for function in (encode_linear, encode):
        features, jacobian = function(points, table, LAYOUT, num_levels=num_levels, with_jacobian=with_jacobian)
        loss = (features * drawn(*features.shape, seed=2)).sum()
        assert (jacobian is not None) == with_jacobian
        if jacobian is not None:
            loss = loss + (jacobian.square() * drawn(*jacobian.shape, seed=3)).sum()
        (gradient,) = torch.autograd.grad(loss, table)
        results.append([features, gradient, *([] if jacobian is None else [jacobian])])
    for ours, reference in zip(*results, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-12, atol=1e-12)


def test_features_alone_may_be_followed_where_slopes_were_asked_for() -> None:
    points = torch.rand((20, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    table = drawn(LAYOUT.num_entries, 2, seed=1).requires_grad_()
    ours, reference = (
        torch.autograd.grad(function(points, table, LAYOUT, num_levels=3, with_jacobian=jacobian)[0].sum(), table)[0]
        for function, jacobian in ((encode_linear, True), (encode, False))
    )
    torch.testing.assert_close(ours, reference, rtol=1e-12, atol=1e-12)


def test_its_results_are_all_that_it_holds() -> None:
    held = []
    for function in (encode_linear, encode):
        points = torch.empty(10_000, 3, device="meta")
        table = torch.empty(LAYOUT.num_entries, 2, device="meta", requires_grad=True)
        with StepMeter() as meter:
            meter.leave_out([points, table])
            results = function(points, table, LAYOUT, num_levels=3, with_jacobian=True)
        sizes = [4 * result.numel() for result in results if result is not None]
        held.append((meter.live.total(), sum(sizes)))
    assert held[0][0] == held[0][1]
    assert held[1][0] > 4 * held[1][1]


def test_memory_on_the_way_is_bounded() -> None:
    peaks = []
    for count in (linear_encoding._POINTS_AT_ONCE, 8 * linear_encoding._POINTS_AT_ONCE):
        points = torch.empty(count, 3, device="meta")
        table = torch.empty(LAYOUT.num_entries, 2, device="meta")
        with torch.no_grad(), StepMeter() as meter:
            meter.leave_out([points, table])
            features, _ = encode_linear(points, table, LAYOUT, num_levels=3)
        peaks.append(meter.peak.total() - 4 * features.numel())
    assert peaks[0] == peaks[1]
