"""Contributions against blending weights that the torch reference computes in float64, splat by splat."""

from __future__ import annotations

import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch, orbit_cameras
from sdi_gs.rasterize.torch_reference import render
from sdi_gs.representations.contributions import contributions
from sdi_gs.representations.gaussians import Gaussians


def test_they_are_the_sums_of_the_blending_weights_over_all_views() -> None:
    generator, count = torch.Generator().manual_seed(0), 40
    params = {
        "means": 0.6 * torch.randn(count, 3, generator=generator),
        "scales": 0.5 * torch.randn(count, 3, generator=generator) - 2.0,
        "quats": torch.randn(count, 4, generator=generator),
        "opacities": 2.0 * torch.randn(count, generator=generator),
        "sh0": torch.zeros(count, 1, 3),
    }
    three = torch.ones(3)
    cameras = orbit_cameras(
        torch.tensor([0.0, 100.0, 230.0]), 20.0 * three, 3.0 * three, 40.0 * three, width=48, height=48
    )
    weights, alphas = reference(params, cameras)
    found, wanted = contributions(Gaussians(params), cameras), weights.sum(dim=(0, 1, 2))
    assert found.shape == (count,)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-3, atol=1e-3)
    # All weights of a pixel add up to its alpha.
    torch.testing.assert_close(found.double().sum(), alphas.sum(), rtol=1e-3, atol=1e-3)
    assert float(found.max()) > 50.0


def reference(params: dict[str, Tensor], cameras: CameraBatch) -> tuple[Tensor, Tensor]:
    """Render every splat in a channel of its own, in float64: weights [B, H, W, N] and alphas [B, H, W, 1]."""
    double = {name: value.double() for name, value in params.items()}
    weights, alphas, _ = render(
        means=double["means"],
        quats=double["quats"],
        scales=double["scales"].exp(),
        opacities=double["opacities"].sigmoid(),
        colors=torch.eye(len(double["means"]), dtype=torch.float64),
        viewmats=cameras.camera_from_world.double(),
        Ks=cameras.intrinsics.double(),
        width=cameras.width,
        height=cameras.height,
    )
    return weights, alphas
