"""Triton's kernels in its interpreter, on the CPU; ``test_triton_encoding.py`` runs them in a process of their own.

Triton reads ``TRITON_INTERPRET`` when it is imported. The oracle is the reference in float64.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sdi_gs.representations.ngp.hash_grid import GridLayout, encode, grid_layout
from sdi_gs.representations.ngp.kernels.triton_encoding import POINTS
from sdi_gs.representations.ngp.networks import Weights, query
from sdi_gs.representations.ngp.triton_encoding import encode as encode_by_triton
from sdi_gs.settings.ngp import HashGridConfig

GRID = HashGridConfig(num_levels=4, log2_table_size=12, initial_levels=2)
"""Its first level is dense, and the others are hashed."""


def layout() -> GridLayout:
    found = grid_layout(GRID)
    assert set(found.hashed) == {False, True}
    return found


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def points_of(count: int) -> Tensor:
    points = torch.rand(count, 3, generator=torch.Generator().manual_seed(1)).double()
    # The cube's first and last corner, and one on a face.
    ends = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [1.0, 0.5, 0.0]], dtype=torch.float64)
    return torch.cat([ends, points])[:count]


@pytest.mark.parametrize("num_levels", [4, 2])
@pytest.mark.parametrize("count", [1, POINTS + 9])
def test_features_slopes_and_gradients_are_the_references(count: int, num_levels: int) -> None:
    grid, points = layout(), points_of(count)
    width = 2 * GRID.num_levels
    table, along = drawn(grid.num_entries, 2, seed=2), drawn(count, width, seed=3)
    towards, by_slopes = drawn(count, width, seed=4), drawn(count, 3, seed=5)

    own_table, own_along = (value.float().requires_grad_() for value in (table, along))
    encoded = encode_by_triton(points.float(), own_table, grid, num_levels=num_levels, with_slopes=True)
    assert encoded.slopes_along is not None
    slopes = encoded.slopes_along(own_along)
    loss = (encoded.features * towards.float()).sum() + (slopes * by_slopes.float()).sum()
    found = torch.autograd.grad(loss, (own_table, own_along))

    table.requires_grad_()
    along.requires_grad_()
    features, jacobian = encode(points.float().double(), table, grid, num_levels=num_levels, with_jacobian=True)
    assert jacobian is not None
    expected_slopes = (jacobian @ along[:, :, None])[:, :, 0]
    expected = torch.autograd.grad((features * towards).sum() + (expected_slopes * by_slopes).sum(), (table, along))

    # A coordinate of up to 130 cells in float32 is off by 8e-6 of a cell.
    for own, reference in zip((encoded.features, slopes, *found), (features, expected_slopes, *expected), strict=True):
        torch.testing.assert_close(
            own.double(), reference, rtol=1e-4, atol=5e-5 * float(reference.detach().abs().max())
        )


def test_of_no_points_there_is_nothing() -> None:
    grid = layout()
    table = torch.ones(grid.num_entries, 2, requires_grad=True)
    encoded = encode_by_triton(torch.empty(0, 3), table, grid, num_levels=4, with_slopes=True)
    assert encoded.slopes_along is not None
    slopes = encoded.slopes_along(torch.empty(0, 8))
    assert (encoded.features.shape, slopes.shape) == ((0, 8), (0, 3))
    (gradient,) = torch.autograd.grad(encoded.features.sum() + slopes.sum(), table)
    assert not gradient.any()


def test_without_slopes_none_are_offered() -> None:
    table = torch.ones(layout().num_entries, 2)
    assert encode_by_triton(points_of(1).float(), table, layout(), num_levels=4).slopes_along is None


def test_networks_over_triton_are_those_over_torch() -> None:
    grid, width = layout(), 2 * GRID.num_levels
    shapes = {"table": (grid.num_entries, 2), "density_hidden": (width, 8), "density_out": (8,)}
    shapes |= {"albedo_hidden": (width, 8), "albedo_out": (8, 3)}
    found = []
    for backend in ("triton", "torch"):
        weights = {name: drawn(*shape, seed=6).float().requires_grad_() for name, shape in shapes.items()}
        seen = query(
            points_of(40).float(),
            Weights(**weights),
            grid,
            num_levels=4,
            with_colour=True,
            with_slopes=True,
            backend=backend,
        )
        assert seen.logits is not None and seen.slopes is not None
        loss = seen.raw.sum() + seen.logits.square().sum() + seen.slopes[:, 0].sin().sum()
        gradients = torch.autograd.grad(loss, list(weights.values()))
        found.append((seen.raw, seen.logits, seen.slopes, *gradients))
    for own, reference in zip(*found, strict=True):
        torch.testing.assert_close(own, reference, rtol=1e-3, atol=1e-4 * float(reference.detach().abs().max()))
