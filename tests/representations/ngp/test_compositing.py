"""Blending along rays against closed forms, against alpha compositing, and its gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from sdi_gs.representations.ngp.compositing import CompositingBackend, composite, compositing_backend, visible
from sdi_gs.representations.ngp.marching import Samples

each_backend = pytest.mark.parametrize("backend", ["numba", "torch"])


def make_samples(counts: Sequence[int], step: float = 0.1, dtype: torch.dtype = torch.float32) -> Samples:
    """Rays with so many samples each, one step apart."""
    starts = torch.tensor([0, *counts]).cumsum(0)
    ids = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    distances = (torch.arange(len(ids)) - starts[ids] + 0.5).to(dtype) * step
    return Samples(
        distances=distances, points=torch.zeros(len(ids), 3, dtype=dtype), ray_ids=ids, ray_starts=starts, step=step
    )


@each_backend
def test_a_homogeneous_medium_absorbs_by_beer_and_lambert(backend: CompositingBackend) -> None:
    density, length, steps = 1.7, 2.0, 400
    samples = make_samples([steps, 0, steps // 2], length / steps)
    values = torch.cat([torch.full((len(samples), 1), 0.3), samples.distances[:, None]], dim=1)
    made = composite(torch.full((len(samples),), density), values, samples, backend=backend)
    opacity = torch.tensor([1.0 - math.exp(-density * x) for x in (length, 0.0, 0.5 * length)])
    torch.testing.assert_close(made.opacity, opacity, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(made.sums[:, 0], 0.3 * opacity, rtol=1e-5, atol=1e-6)
    # The mean depth of absorption on [0, l], without normalisation: 1 / s - (l + 1 / s) exp(-s l).
    for ray, x in ((0, length), (2, 0.5 * length)):
        depth = 1.0 / density - (x + 1.0 / density) * math.exp(-density * x)
        assert made.sums[ray, 1].item() == pytest.approx(depth, rel=1e-4)


@each_backend
def test_blending_is_alpha_compositing_front_to_back(backend: CompositingBackend) -> None:
    generator = torch.Generator().manual_seed(0)
    counts = [7, 0, 1, 23]
    samples = make_samples(counts)
    density = 20.0 * torch.rand(len(samples), generator=generator)
    values = torch.rand((len(samples), 4), generator=generator)
    made = composite(density, values, samples, backend=backend)
    place = 0
    for ray, count in enumerate(counts):
        transmittance, total = 1.0, torch.zeros(4, dtype=torch.float64)
        for _ in range(count):
            alpha = 1.0 - math.exp(-density[place].item() * samples.step)
            assert made.weights[place].item() == pytest.approx(transmittance * alpha, rel=1e-4, abs=1e-7)
            total += transmittance * alpha * values[place].double()
            transmittance *= 1.0 - alpha
            place += 1
        torch.testing.assert_close(made.sums[ray].double(), total, rtol=1e-5, atol=1e-6)
        assert made.opacity[ray].item() == pytest.approx(1.0 - transmittance, abs=1e-6)


def gradients(samples: Samples, dtype: torch.dtype, backend: CompositingBackend) -> tuple[Tensor, ...]:
    """Of a random function of all outputs by density and values."""
    generator = torch.Generator().manual_seed(1)
    density = (5.0 * torch.rand(len(samples), generator=generator)).to(dtype).requires_grad_()
    values = torch.randn((len(samples), 5), generator=generator).to(dtype).requires_grad_()
    made = composite(density, values, samples, backend=backend)
    loss = torch.zeros((), dtype=dtype)
    for output in (made.weights, made.opacity, made.sums):
        loss = loss + (torch.randn(output.shape, generator=generator) * output.square()).sum()
    return torch.autograd.grad(loss, [density, values])


def test_kernel_gradients_match_float64() -> None:
    counts = [40, 0, 3, 90, 1] * 60
    ours = gradients(make_samples(counts), torch.float32, "numba")
    truth = gradients(make_samples(counts, dtype=torch.float64), torch.float64, "torch")
    for part, true in zip(ours, truth, strict=True):
        assert (part - true).norm() < 1e-5 * true.norm()


def test_torch_gradients_pass_gradcheck() -> None:
    samples = make_samples([4, 0, 2], dtype=torch.float64)
    generator = torch.Generator().manual_seed(2)
    density = torch.rand(6, generator=generator, dtype=torch.float64).requires_grad_()
    values = torch.rand((6, 2), generator=generator, dtype=torch.float64).requires_grad_()

    def outputs(density: Tensor, values: Tensor) -> tuple[Tensor, ...]:
        made = composite(density, values, samples)
        return made.weights, made.opacity, made.sums

    assert torch.autograd.gradcheck(outputs, (density, values))


def test_the_front_keeps_its_gradient_before_an_opaque_wall() -> None:
    samples = make_samples([3])
    density = torch.tensor([1e-3, 1e-3, 1e7], requires_grad=True)
    opacity = composite(density, torch.zeros(3, 0), samples).weights
    (gradient,) = torch.autograd.grad(opacity[0], density)
    assert gradient.tolist() == pytest.approx([0.1 * math.exp(-1e-4), 0.0, 0.0], rel=1e-5)


def test_hidden_and_empty_samples_are_not_visible() -> None:
    samples = make_samples([4, 2])
    density = torch.tensor([0.0, 50.0, 60.0, 9.0, 1e-4, 1.0])
    # Optical depth 11 lies before the fourth; e^-5 is still above the threshold.
    expected = [False, True, True, False, False, True]
    assert visible(density, samples, 1e-4).tolist() == expected
    double = make_samples([4, 2], dtype=torch.float64)
    assert visible(density.double(), double, 1e-4).tolist() == expected


def test_the_backend_follows_device_and_type(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "sdi_gs.representations.ngp.compositing.is_installed"
    assert compositing_backend(torch.device("cpu"), torch.float32) == "numba"
    assert compositing_backend(torch.device("cpu"), torch.float64) == "torch"
    monkeypatch.setattr(module, lambda name: False)
    monkeypatch.setattr("sdi_gs.representations.ngp.compositing.has_triton", lambda: False)
    assert compositing_backend(torch.device("cuda"), torch.float32) == "torch"
    monkeypatch.setattr(module, lambda name: True)
    assert compositing_backend(torch.device("cuda"), torch.float32) == "nerfacc"
    assert compositing_backend(torch.device("cuda"), torch.float64) == "torch"
