"""The networks' kernels against torch in float64, and the gradient of slopes against a second derivative."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sdi_gs.representations.ngp.backends import Backend
from sdi_gs.representations.ngp.hash_grid import GridLayout, grid_layout
from sdi_gs.representations.ngp.networks import Weights, query, query_backend
from sdi_gs.settings.ngp import HashGridConfig

HIDDEN = 12


def make_weights(layout: GridLayout, dtype: torch.dtype = torch.float32) -> Weights:
    generator = torch.Generator().manual_seed(0)
    width = 2 * layout.num_levels

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype).requires_grad_()

    return Weights(
        table=normal(layout.num_entries, 2),
        density_hidden=normal(width, HIDDEN),
        density_out=normal(HIDDEN),
        albedo_hidden=normal(width, HIDDEN),
        albedo_out=normal(HIDDEN, 3),
    )


def make_layout(num_levels: int = 3) -> GridLayout:
    return grid_layout(HashGridConfig(num_levels=num_levels, initial_levels=1, log2_table_size=13))


def make_points(layout: GridLayout, count: int) -> Tensor:  # [count, 3]
    """Points that float32 puts into the same cells as float64."""
    points = torch.rand((4 * count, 3), generator=torch.Generator().manual_seed(1))
    shares = torch.stack([(points * scale + 0.5) % 1.0 for scale in layout.scales])
    return points[((shares > 1e-3) & (shares < 1.0 - 1e-3)).all(dim=-1).all(dim=0)][:count]


def outputs_and_gradients(
    points: Tensor, layout: GridLayout, backend: Backend, dtype: torch.dtype, **wanted: Any
) -> list[Tensor]:
    """raw, then logits and slopes where wanted, then the gradients of a random sum of them."""
    weights = make_weights(layout, dtype)
    seen = query(points.to(dtype), weights, layout, backend=backend, **wanted)
    outputs = [part for part in (seen.raw, seen.logits, seen.slopes) if part is not None]
    generator = torch.Generator().manual_seed(2)
    loss = torch.stack([(out * torch.randn(out.shape, generator=generator)).sum() for out in outputs]).sum()
    gradients = torch.autograd.grad(loss, weights.tensors(), materialize_grads=True)
    return [part.detach().double() for part in (*outputs, *gradients)]


@pytest.mark.parametrize("with_slopes", [False, True])
@pytest.mark.parametrize("with_colour", [False, True])
@pytest.mark.parametrize(("num_levels", "count"), [(3, 9001), (2, 37)])
def test_kernels_and_gradients_match_float64(num_levels: int, count: int, with_colour: bool, with_slopes: bool) -> None:
    layout = make_layout()
    points = make_points(layout, count)
    wanted = {"num_levels": num_levels, "with_colour": with_colour, "with_slopes": with_slopes}
    ours = outputs_and_gradients(points, layout, "numba", torch.float32, **wanted)
    truth = outputs_and_gradients(points, layout, "torch", torch.float64, **wanted)
    assert len(ours) == len(truth) == 1 + with_colour + with_slopes + 5
    for part, true in zip(ours, truth, strict=True):
        assert (part - true).norm() <= 2e-5 * true.norm()


def test_the_gradient_of_slopes_is_that_of_a_second_derivative() -> None:
    layout = make_layout()
    weights = make_weights(layout, torch.float64)
    points = make_points(layout, 200).double().requires_grad_()
    wanted: dict[str, Any] = {"num_levels": 3, "with_colour": False, "backend": "torch"}
    towards = torch.randn(len(points), 3, generator=torch.Generator().manual_seed(5)).double()
    ours = query(points.detach(), weights, layout, with_slopes=True, **wanted)
    raw = query(points, weights, layout, with_slopes=False, **wanted).raw
    (slopes,) = torch.autograd.grad(raw.sum(), points, create_graph=True)
    assert ours.slopes is not None
    torch.testing.assert_close(ours.slopes, slopes)
    leaves = [weights.table, weights.density_hidden, weights.density_out]
    first = torch.autograd.grad((ours.slopes * towards).square().sum(), leaves)
    second = torch.autograd.grad((slopes * towards).square().sum(), leaves)
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b)


def test_torch_gradients_pass_gradcheck() -> None:
    layout = grid_layout(HashGridConfig(num_levels=1, initial_levels=1, log2_table_size=8))
    points = make_points(layout, 3).double()
    weights = make_weights(layout, torch.float64)

    def outputs(*tensors: Tensor) -> tuple[Tensor, ...]:
        names = ("table", "density_hidden", "density_out", "albedo_hidden", "albedo_out")
        seen = query(
            points,
            Weights(**dict(zip(names, tensors, strict=True))),
            layout,
            num_levels=1,
            with_colour=True,
            with_slopes=True,
        )
        assert seen.logits is not None
        assert seen.slopes is not None
        return seen.raw, seen.logits, seen.slopes

    assert torch.autograd.gradcheck(outputs, weights.tensors())


def test_the_backend_follows_device_type_and_gradient() -> None:
    layout = make_layout(1)
    weights = make_weights(layout)
    points = torch.rand(3, 3)
    assert query_backend(points, weights, layout) == "numba"
    assert query_backend(points.double(), weights, layout) == "torch"
    assert query_backend(points.requires_grad_(), weights, layout) == "torch"
    assert query_backend(points.detach().to("meta"), weights, layout) == "torch"


def test_a_look_at_no_points_is_empty() -> None:
    layout = make_layout(1)
    weights = make_weights(layout)
    seen = query(torch.zeros(0, 3), weights, layout, num_levels=1, with_colour=True, with_slopes=True)
    assert seen.logits is not None
    assert seen.slopes is not None
    (seen.raw.sum() + seen.logits.sum() + seen.slopes.sum()).backward()
    assert seen.logits.shape == seen.slopes.shape == (0, 3)
    assert weights.table.grad is not None
    assert (weights.table.grad == 0.0).all()


def test_results_are_bitwise_equal_for_any_number_of_threads(set_threads: Callable[[int], None]) -> None:
    layout = make_layout()
    # Enough points for several chunks of the weights' sums.
    points = make_points(layout, 30_000)
    results = []
    for num_threads in (1, 2, 3, 1):
        set_threads(num_threads)
        results.append(
            outputs_and_gradients(
                points, layout, "numba", torch.float32, num_levels=3, with_colour=True, with_slopes=True
            )
        )
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], result, strict=True))
