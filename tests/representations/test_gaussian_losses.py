"""Each term of the loss against its closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sdi_gs.representations.gaussian_losses import compactness_loss, disparity, fog_loss, needle_loss, total_variation
from sdi_gs.training.losses import distillation_loss


def log_scales(*rows: tuple[float, float, float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).log().requires_grad_()


def test_the_distillation_loss_is_half_the_mean_squared_distance() -> None:
    latents = torch.tensor([[[[1.0, -2.0]]]], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[[[4.0, 2.0]]]], dtype=torch.float64)
    loss = distillation_loss(latents, target)
    assert loss.item() == 0.5 * (9.0 + 16.0) / 2.0
    (gradient,) = torch.autograd.grad(loss, latents)
    assert gradient.flatten().tolist() == [-1.5, -2.0]


@pytest.mark.parametrize(("alpha", "loss"), [(0.0, 0.0), (1.0, 0.0), (0.5, 0.25), (0.2, 0.16)])
def test_fog_costs_nothing_where_pixels_are_empty_or_full(alpha: float, loss: float) -> None:
    assert fog_loss(torch.full((2, 3, 3, 1), alpha)).item() == pytest.approx(loss)


def test_fog_is_pushed_to_the_nearer_end() -> None:
    alpha = torch.tensor([0.25, 0.75]).view(1, 1, 2, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(fog_loss(alpha), alpha)
    assert gradient.flatten().tolist() == [0.25, -0.25]


def test_compactness_is_the_squared_distance_weighted_by_opacity() -> None:
    means = torch.tensor([[3.0, 0.0, 4.0], [0.0, 1.0, 0.0]], requires_grad=True)
    opacities = torch.tensor([0.25, 0.75], requires_grad=True)
    loss = compactness_loss(means, opacities)
    assert loss.item() == pytest.approx(0.25 * 25.0 + 0.75 * 1.0)
    at_means, at_opacities = torch.autograd.grad(loss, [means, opacities])
    torch.testing.assert_close(at_means, torch.tensor([[1.5, 0.0, 2.0], [0.0, 1.5, 0.0]]))
    # The sum in the denominator is held: far Gaussians fade rather than near ones growing.
    torch.testing.assert_close(at_opacities, torch.tensor([25.0, 1.0]))


def test_compactness_of_nothing_is_zero() -> None:
    assert compactness_loss(torch.randn(4, 3), torch.zeros(4)).item() == 0.0


def test_needles_cost_the_square_of_their_excess_length() -> None:
    scales = log_scales((0.1, 0.1, 1.6), (0.1, 0.1, 0.4))
    loss = needle_loss(scales, 8.0)
    # Ratios 16 and 4: the first exceeds 8 by a factor of 2.
    assert loss.item() == pytest.approx(math.log(2.0) ** 2 / 2.0)
    (gradient,) = torch.autograd.grad(loss, scales)
    assert gradient[0, 2] > 0.0
    assert gradient[0, :2].sum().item() == pytest.approx(-gradient[0, 2].item())
    assert (gradient[1] == 0.0).all()


def test_the_order_of_the_axes_does_not_matter_to_needles() -> None:
    axes = [(0.05, 0.1, 2.0), (2.0, 0.05, 0.1), (0.1, 2.0, 0.05)]
    losses = [needle_loss(log_scales(row), 8.0).item() for row in axes]
    assert losses == pytest.approx([math.log(20.0 / 8.0) ** 2] * 3)


@pytest.mark.parametrize("rows", [slice(None), slice(None, None, 3)], ids=["contiguous", "strided"])
def test_needles_in_float32_are_those_of_float64(rows: slice) -> None:
    raw = 1.5 * torch.randn(600, 3, generator=torch.Generator().manual_seed(0))
    # Equal axes, in every place.
    raw[:3] = torch.tensor([[1.0, 1.0, -4.0], [1.0, -4.0, 1.0], [-4.0, 1.0, 1.0]])
    pairs = []
    for dtype in (torch.float32, torch.float64):
        scales = raw.to(dtype).requires_grad_()
        loss = 3.0 * needle_loss(scales[rows], 2.0)
        pairs.append((loss, *torch.autograd.grad(loss, scales)))
    for single, double in zip(*pairs, strict=True):
        assert single.dtype == torch.float32
        assert double.abs().max() > 1e-3
        torch.testing.assert_close(single.double(), double, atol=1e-7, rtol=1e-5)


def test_a_needle_that_is_no_number_makes_the_loss_none() -> None:
    scales = torch.zeros(4, 3)
    scales[2, 1] = math.nan
    assert needle_loss(scales, 8.0).isnan()


def test_discs_are_free_however_thin() -> None:
    assert needle_loss(log_scales((1e-6, 0.5, 1.0)), 8.0).item() == 0.0


def test_total_variation_is_twice_the_mean_squared_step_both_ways() -> None:
    pictures = torch.rand(2, 4, 5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    down = [
        (pictures[b, y + 1, x, c] - pictures[b, y, x, c]).item() ** 2
        for b in range(2) for y in range(3) for x in range(5) for c in range(3)
    ]  # fmt: skip
    across = [
        (pictures[b, y, x + 1, c] - pictures[b, y, x, c]).item() ** 2
        for b in range(2) for y in range(4) for x in range(4) for c in range(3)
    ]  # fmt: skip
    expected = 2.0 * (sum(down) / len(down) + sum(across) / len(across))
    assert total_variation(pictures).item() == pytest.approx(expected, rel=1e-12)
    ramp = (0.1 * torch.arange(5.0)).expand(1, 4, 5)[..., None]
    assert total_variation(ramp).item() == pytest.approx(2.0 * 0.1**2, rel=1e-5)


def test_disparity_spans_each_view_from_what_is_behind_to_what_is_nearest() -> None:
    depth = torch.tensor([[2.0, 3.0, 4.0], [2.0, 2.5, 2.0]], dtype=torch.float64)[:, :, None, None]
    alpha = torch.tensor([[1.0, 0.5, 0.05], [1.0, 1.0, 1.0]], dtype=torch.float64)[:, :, None, None]
    focal = torch.tensor([1.2, 0.9], dtype=torch.float64)
    found = disparity(depth, alpha, focal)
    for view in range(2):
        seen = [
            focal[view].item() / (d * a + 10.0 * a + 1e-5)
            for d, a in zip(depth[view].flatten().tolist(), alpha[view].flatten().tolist(), strict=True)
        ]
        behind = [value for value, a in zip(seen, alpha[view].flatten().tolist(), strict=True) if a <= 0.1]
        base = min(behind) if behind else min(seen)
        expected = [min(max((value - base) / max(max(seen) - base, 1e-6), 0.0), 1.0) for value in seen]
        assert found[view].flatten().tolist() == pytest.approx(expected, rel=1e-9)


def test_disparity_of_an_empty_view_is_flat_and_its_gradient_finite() -> None:
    depth, alpha = torch.zeros(1, 4, 4, 1, requires_grad=True), torch.zeros(1, 4, 4, 1, requires_grad=True)
    seen = disparity(depth, alpha, torch.ones(1))
    assert seen.abs().max().item() == 0.0
    total_variation(seen).backward()
    assert alpha.grad is not None
    assert alpha.grad.isfinite().all()
