"""Each term of the loss against its closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sdi_gs.representations.gaussian_losses import compactness_loss, fog_loss, needle_loss
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


def test_discs_are_free_however_thin() -> None:
    assert needle_loss(log_scales((1e-6, 0.5, 1.0)), 8.0).item() == 0.0
