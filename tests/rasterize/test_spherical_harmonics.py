"""Spherical harmonics against gsplat's torch version and the closed form of orthonormality."""

from __future__ import annotations

import math

import pytest
import torch
from gsplat.cuda import _torch_impl

from sdi_gs.rasterize.spherical_harmonics import harmonic_bases, harmonic_colors


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_colors_and_gradients_match_gsplat(degree: int) -> None:
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(2, 30, 3, generator=generator, dtype=torch.float64).requires_grad_()
    coefficients = torch.randn(2, 30, 16, 3, generator=generator, dtype=torch.float64).requires_grad_()
    weights = torch.randn(2, 30, 3, generator=generator, dtype=torch.float64)
    results = []
    for function in (harmonic_colors, _torch_impl._spherical_harmonics):
        value = function(degree, directions, coefficients)
        gradients = torch.autograd.grad(
            (value * weights).sum(), (directions, coefficients), allow_unused=True, materialize_grads=True
        )
        results.append((value, *gradients))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_bases_are_orthonormal_on_the_sphere() -> None:
    # Gauss-Legendre in z and equal steps in azimuth integrate polynomials of degree 6 exactly.
    z = torch.tensor([-0.9491079123, -0.7415311856, -0.4058451514, 0.0, 0.4058451514, 0.7415311856, 0.9491079123])
    weight = torch.tensor(
        [0.1294849662, 0.2797053915, 0.3818300505, 0.4179591837, 0.3818300505, 0.2797053915, 0.1294849662]
    )
    azimuth = torch.arange(16) * (2 * math.pi / 16)
    radius = (1 - z**2).sqrt()
    directions = torch.stack(
        [radius[:, None] * azimuth.cos(), radius[:, None] * azimuth.sin(), z[:, None].expand(-1, 16)], dim=-1
    )
    bases = harmonic_bases(3, directions)
    gram = torch.einsum("zai,zaj,z->ij", bases, bases, weight) * (2 * math.pi / 16)
    torch.testing.assert_close(gram, torch.eye(16), rtol=0, atol=1e-5)
