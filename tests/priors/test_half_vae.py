"""The autoencoder in half precision: gradients that float16 could not hold, and what happens where it overflows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sdi_gs.priors.half_vae import BackwardScale, into, out_of
from sdi_gs.priors.latent_diffusion import LatentDiffusionPrior
from sdi_gs.priors.latent_diffusion_loading import load_latent_diffusion
from sdi_gs.settings.compute import ComputeConfig

MEAN_OF_A_REAL_STEP = 1e-4 / 16_384
"""A pull of 1e-4 on one of 16 384 latents: a tenth of float16's smallest number."""


@pytest.fixture
def load(pristine_models: dict[str, Path]) -> Callable[..., LatentDiffusionPrior]:
    def loaded(**compute: object) -> LatentDiffusionPrior:
        prior = load_latent_diffusion(pristine_models["epsilon"], device="cpu", dtype=torch.float32)
        prior.configure(ComputeConfig(**compute))  # pyright: ignore[reportArgumentType]
        return prior

    return loaded


def encoded(prior: LatentDiffusionPrior, pull: float = 1.0) -> tuple[Tensor, Tensor]:
    """Latents of three images, and the images' gradient under a loss whose own gradient is of size ``pull``."""
    images = torch.rand(3, 64, 64, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
    latents = prior.encode_images(images, torch.Generator().manual_seed(2))
    directions = torch.randn(latents.shape, generator=torch.Generator().manual_seed(3))
    (gradient,) = torch.autograd.grad((latents * directions).sum() * pull, images)
    return latents.detach(), gradient


def apart(left: Tensor, right: Tensor) -> float:
    return float((left - right).norm() / right.norm())


@pytest.mark.parametrize(("precision", "limit"), [("float16", 5e-3), ("bfloat16", 5e-2)])
@pytest.mark.parametrize("groups", [{}, {"vae_views_at_once": 1}, {"vae": "checkpoint"}], ids=str)
def test_latents_and_gradients_are_those_of_float32_up_to_rounding(
    load: Callable[..., LatentDiffusionPrior], precision: str, limit: float, groups: dict[str, object]
) -> None:
    (latents, gradient), (half, half_gradient) = encoded(load()), encoded(load(vae_precision=precision, **groups))
    assert half.dtype == half_gradient.dtype == torch.float32
    assert 0.0 < apart(half, latents) < limit
    assert 0.0 < apart(half_gradient, gradient) < limit


@pytest.mark.parametrize("pull", [MEAN_OF_A_REAL_STEP, 1e-20, 1.0, 1e12])
def test_gradients_of_every_size_survive_float16(load: Callable[..., LatentDiffusionPrior], pull: float) -> None:
    (_, gradient), (_, half) = encoded(load(), pull), encoded(load(vae_precision="float16"), pull)
    assert apart(half, gradient) < 5e-3


def test_without_the_scale_they_would_not() -> None:
    gradient = torch.full((4,), MEAN_OF_A_REAL_STEP)
    assert gradient.to(torch.float16).count_nonzero() == 0


@pytest.mark.parametrize("value", [3e-9, 0.7, 5e9, 0.0])
def test_a_power_of_two_is_taken_and_given_back(value: float) -> None:
    images, scale, entering = torch.ones(2, 3, requires_grad=True), BackwardScale(), list[Tensor]()
    inner = into(images, torch.float16, scale)
    inner.register_hook(entering.append)
    out_of(inner, torch.float32, scale).backward(torch.full((2, 3), value))
    assert images.grad is not None
    # Eleven bits of the value itself, at any size.
    torch.testing.assert_close(images.grad, torch.full((2, 3), value), rtol=2**-11, atol=0.0)
    assert entering[0].dtype == torch.float16
    assert float(entering[0].max()) == 0.0 if value == 0.0 else 1.0 <= float(entering[0].max()) <= 2.0


def test_a_gradient_that_is_not_finite_stays_so() -> None:
    images, scale = torch.ones(2, requires_grad=True), BackwardScale()
    out_of(into(images, torch.float16, scale), torch.float32, scale).backward(torch.tensor([1.0, torch.inf]))
    assert images.grad is not None
    assert images.grad.isfinite().tolist() == [True, False]


def test_back_in_float32_every_bit_is_as_before(load: Callable[..., LatentDiffusionPrior]) -> None:
    prior = load(vae_precision="float16")
    prior.configure(ComputeConfig(vae_precision="float32"))
    for left, right in zip(encoded(prior), encoded(load()), strict=True):
        assert torch.equal(left, right)


def test_decoded_pictures_are_float32(load: Callable[..., LatentDiffusionPrior]) -> None:
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(4))
    wide, half = (load(vae_precision=name).decode_latents(latents) for name in ("auto", "float16"))
    assert half.dtype == torch.float32
    assert 0.0 < float((half - wide).abs().max()) < 0.01
