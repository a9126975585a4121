"""The torch twins of gsplat's two CUDA-only functions, against float64 and closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from gsplat.strategy import ops

from sdi_gs.representations.relocation import MAX_RATIO, device_dispatch, relocated_torch


def transcribed(opacity: float, ratio: int) -> tuple[float, float]:
    """New opacity and factor of the scales, as gsplat's RelocationCUDA.cu loops over them, in exact binomials."""
    after = 1.0 - (1.0 - opacity) ** (1.0 / ratio)
    terms = [
        math.comb(i - 1, k) * (-1.0) ** k / math.sqrt(k + 1) * after ** (k + 1)
        for i in range(1, ratio + 1)
        for k in range(i)
    ]
    return after, opacity / math.fsum(terms)


def by_integral(opacity: float, ratio: int) -> float:
    """The factor from what it stands for: n copies together keep the integral of one along a line (eq. 8)."""
    after = 1.0 - (1.0 - opacity) ** (1.0 / ratio)
    x = torch.linspace(-12.0, 12.0, 200_001, dtype=torch.float64)
    covered = 1.0 - (1.0 - after * torch.exp(-0.5 * x.square())) ** ratio
    one = opacity * math.sqrt(2.0 * math.pi)
    return one / torch.trapezoid(covered, x).item()


@pytest.mark.parametrize("ratio", [1, 2, 3, 11, MAX_RATIO])
@pytest.mark.parametrize("opacity", [0.004, 0.1, 0.5, 0.9, 0.999])
def test_relocation_is_the_kernels_formula_and_its_integral(opacity: float, ratio: int) -> None:
    scales = torch.tensor([[0.1, 0.2, 0.4]], dtype=torch.float64)
    opacities, resized = relocated_torch(
        torch.tensor([opacity], dtype=torch.float64), scales, torch.tensor([ratio], dtype=torch.int64)
    )
    after, factor = transcribed(opacity, ratio)
    assert opacities.item() == pytest.approx(after, rel=1e-9)
    torch.testing.assert_close(resized, factor * scales, rtol=1e-6, atol=0.0)
    torch.testing.assert_close(resized, by_integral(opacity, ratio) * scales, rtol=1e-6, atol=0.0)


def test_one_copy_stays_as_it_is_and_two_have_a_closed_form() -> None:
    opacities, scales = torch.tensor([0.75, 0.75]), torch.full((2, 3), 0.3)
    after, resized = relocated_torch(opacities, scales, torch.tensor([1, 2]))
    assert after.dtype == resized.dtype == torch.float32
    assert after.tolist() == pytest.approx([0.75, 0.5])
    assert resized[:, 0].tolist() == pytest.approx([0.3, 0.3 * 0.75 / (1.0 - 0.25 / math.sqrt(2.0))])


def test_ratios_are_bounded_as_in_gsplats_table() -> None:
    opacities, scales = torch.full((3,), 0.6), torch.full((3, 3), 0.1)
    after, resized = relocated_torch(opacities, scales, torch.tensor([MAX_RATIO, MAX_RATIO + 1, 10_000]))
    assert len(set(after.tolist())) == len(set(resized[:, 0].tolist())) == 1


def test_an_opaque_gaussian_keeps_finite_copies() -> None:
    # In float32 the alternating sum would lose all its digits here.
    opacities = torch.tensor([1.0 - 2.0**-24])
    after, resized = relocated_torch(opacities, torch.ones(1, 3), torch.tensor([MAX_RATIO]))
    assert 0.0 < after.item() < 1.0
    assert resized[0, 0].item() == pytest.approx(by_integral(float(opacities), MAX_RATIO), rel=1e-4)


def test_covariances_of_the_noise_are_those_of_the_rotated_scales() -> None:
    generator = torch.Generator().manual_seed(0)
    quats, scales = torch.randn(20, 4, generator=generator), torch.rand(20, 3, generator=generator) + 0.1
    with device_dispatch():
        found, inverse = ops.quat_scale_to_covar_preci(quats, scales, compute_covar=True, compute_preci=False)
    assert inverse is None
    assert found is not None
    for quat, scale, covariance in zip(quats.double(), scales.double(), found, strict=True):
        w, *xyz = (quat / quat.norm()).tolist()
        axis = torch.tensor(xyz, dtype=torch.float64)
        cross = torch.tensor([[0, -xyz[2], xyz[1]], [xyz[2], 0, -xyz[0]], [-xyz[1], xyz[0], 0]], dtype=torch.float64)
        # Rodrigues' formula, by the half angle.
        rotation = (w * w - axis @ axis) * torch.eye(3) + 2.0 * (torch.outer(axis, axis) + w * cross)
        expected = rotation @ torch.diag(scale.square()) @ rotation.T
        torch.testing.assert_close(covariance.double(), expected, rtol=1e-5, atol=1e-6)


def test_gsplats_own_functions_are_back_afterwards() -> None:
    before = ops.compute_relocation, ops.quat_scale_to_covar_preci
    with pytest.raises(ZeroDivisionError), device_dispatch():
        assert ops.compute_relocation is not before[0]
        _ = 1 / 0
    assert (ops.compute_relocation, ops.quat_scale_to_covar_preci) == before


@pytest.mark.gpu
def test_twins_agree_with_gsplats_kernels() -> None:
    generator = torch.Generator().manual_seed(0)
    opacities = torch.rand(500, generator=generator) * 0.98 + 0.01
    scales, ratios = torch.rand(500, 3, generator=generator), torch.randint(1, 12, (500,), generator=generator)
    state = torch.tensor([[math.comb(n, k) for k in range(MAX_RATIO)] for n in range(MAX_RATIO)], dtype=torch.float32)
    device = torch.device("cuda")
    on_gpu = ops.compute_relocation(opacities.to(device), scales.to(device), ratios.to(device), state.to(device))
    for ours, theirs in zip(relocated_torch(opacities, scales, ratios), on_gpu, strict=True):
        torch.testing.assert_close(ours, theirs.cpu(), rtol=1e-3, atol=1e-6)
