"""The Gaussians: their start, their pictures, their learning rates."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch, orbit_cameras
from sdi_gs.errors import UserError
from sdi_gs.rasterize import rasterization
from sdi_gs.representations.gaussians import SH_C0, Gaussians, gaussian_optimizers, learning_rate, set_learning_rates
from sdi_gs.representations.initial_gaussians import gaussian_ball
from sdi_gs.settings.gaussians import TRAINED, GaussiansConfig

CPU = torch.device("cpu")
CONFIG = GaussiansConfig(num_initial=20_000, initial_radius=0.7, initial_opacity=0.2, initial_colour_spread=0.05)


def ball(config: GaussiansConfig = CONFIG, seed: int = 0) -> Gaussians:
    return gaussian_ball(config, generator=torch.Generator().manual_seed(seed), device=CPU)


def small_ball() -> Gaussians:
    return ball(replace(CONFIG, num_initial=60, initial_opacity=0.6))


def ring(count: int, size: int = 24) -> CameraBatch:
    return orbit_cameras(
        torch.arange(count) * 360.0 / count,
        torch.full((count,), 20.0),
        torch.full((count,), 3.0),
        torch.full((count,), 40.0),
        width=size,
        height=size,
    )


def backgrounds(count: int) -> Tensor:  # [count, 3]
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(5))


def test_the_ball_is_filled_uniformly() -> None:
    means = ball().params["means"].detach().double()
    radii = means.norm(dim=-1)
    assert radii.max() <= 0.7 + 1e-6
    # The share of a uniform ball within radius r is (r / R)^3, so its values are themselves uniform in [0, 1].
    shares = (radii / 0.7).pow(3).sort().values
    uniform = (torch.arange(len(shares)) + 0.5) / len(shares)
    assert (shares - uniform).abs().max() < 1.63 / math.sqrt(len(shares)), "Kolmogorov-Smirnov at 1 %"
    # Each coordinate of a uniform ball has mean 0 and variance R^2 / 5.
    assert means.mean(dim=0).abs().max() < 4 * 0.7 / math.sqrt(5 * len(means))
    torch.testing.assert_close(means.var(dim=0), torch.full((3,), 0.7**2 / 5).double(), rtol=0.03, atol=0.0)


def test_the_start_is_grey_and_as_opaque_as_asked() -> None:
    params = ball().params
    torch.testing.assert_close(torch.sigmoid(params["opacities"]), torch.full((20_000,), 0.2))
    rgb = 0.5 + SH_C0 * params["sh0"][:, 0]
    torch.testing.assert_close(rgb.mean(dim=0), torch.full((3,), 0.5), rtol=0.0, atol=0.002)
    torch.testing.assert_close(rgb.std(dim=0), torch.full((3,), 0.05), rtol=0.03, atol=0.0)


def test_the_start_is_round_and_about_half_a_spacing_wide() -> None:
    params = ball().params
    widths = params["scales"].exp()
    # N spheres of one spacing's radius have the volume of the ball.
    spacing = (0.7**3 * 4 / 3 * math.pi / 20_000) ** (1 / 3)
    torch.testing.assert_close(widths, torch.full((20_000, 3), 0.5 * spacing))
    torch.testing.assert_close(params["quats"].norm(dim=-1), torch.ones(20_000))


def test_a_seed_decides_the_start() -> None:
    first, again, other = ball(seed=1).params, ball(seed=1).params, ball(seed=2).params
    for name in first:
        assert torch.equal(first[name], again[name])
    assert not torch.equal(first["means"], other["means"])


def test_gradients_reach_every_parameter_of_what_is_seen() -> None:
    gaussians = small_ball()
    with torch.no_grad():
        # A round Gaussian has no direction, so its rotation has no gradient.
        gaussians.params["scales"] += torch.tensor([0.5, 0.0, -0.5])
    render = gaussians.render(ring(2), backgrounds(2))
    weights = torch.rand(render.rgb.shape, generator=torch.Generator().manual_seed(1))
    (render.rgb * weights).sum().backward()
    for name, parameter in gaussians.params.items():
        gradient = parameter.grad
        assert gradient is not None
        assert torch.isfinite(gradient).all()
        moved = gradient.flatten(1).abs().sum(dim=1) if gradient.dim() > 1 else gradient.abs()
        assert (moved > 0).float().mean() > 0.9, f"most {name} stand still"


@pytest.mark.parametrize("degree", [0, 1], ids=["constant colour", "harmonics of degree 1"])
def test_a_render_is_the_rasterisers_own_of_the_activated_parameters(degree: int) -> None:
    gaussians = small_ball()
    params = {name: value.detach() for name, value in gaussians.params.items()}
    if degree:
        params["shN"] = 0.3 * torch.randn(60, 3, 3, generator=torch.Generator().manual_seed(2))
        gaussians = Gaussians(params)
    cameras, behind = ring(3), backgrounds(3)
    render = gaussians.render(cameras, behind)
    expected, alpha, _ = rasterization(
        means=params["means"],
        quats=params["quats"],
        scales=params["scales"].exp(),
        opacities=params["opacities"].sigmoid(),
        colors=torch.cat([params["sh0"], params["shN"]], dim=1) if degree else params["sh0"],
        sh_degree=degree,
        viewmats=torch.linalg.inv(cameras.world_from_camera),
        Ks=cameras.intrinsics,
        width=24,
        height=24,
        packed=False,
        backgrounds=behind,
    )
    torch.testing.assert_close(render.rgb, expected, rtol=0.0, atol=2e-6)
    torch.testing.assert_close(render.alpha, alpha, rtol=0.0, atol=2e-6)
    assert 0.1 < render.alpha.mean() < 0.9


def test_depth_is_the_distance_along_the_view_whatever_the_background() -> None:
    # One small opaque Gaussian at the origin, 3 units away.
    gaussians = Gaussians(
        {
            "means": torch.zeros(1, 3),
            "scales": torch.full((1, 3), math.log(0.05)),
            "quats": torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
            "opacities": torch.full((1,), 5.0),
            "sh0": torch.zeros(1, 1, 3),
        }
    )
    render = gaussians.render(ring(2), backgrounds(2), with_depth=True)
    assert render.depth is not None
    assert render.rgb.shape == (2, 24, 24, 3)
    covered = render.alpha > 0.1
    torch.testing.assert_close(render.depth[covered], torch.full_like(render.depth[covered], 3.0))
    assert gaussians.render(ring(2), backgrounds(2)).depth is None


def test_where_nothing_is_the_background_shows() -> None:
    gaussians = small_ball()
    with torch.no_grad():
        gaussians.params["means"][:, 2] += 100.0
    behind = backgrounds(2)
    render = gaussians.render(ring(2), behind)
    assert torch.equal(render.rgb, behind[:, None, None, :].expand(2, 24, 24, 3))
    assert render.alpha.abs().max() == 0.0


def test_every_parameter_has_its_own_optimiser_with_its_own_rate() -> None:
    config = GaussiansConfig(means_lr=1e-1, scales_lr=2e-1, quats_lr=3e-1, opacities_lr=4e-1, sh0_lr=5e-1)
    gaussians = ball(replace(config, num_initial=4))
    before = {name: value.detach().clone() for name, value in gaussians.params.items()}
    optimizers = gaussian_optimizers(gaussians, config)
    for name, parameter in gaussians.params.items():
        parameter.grad = torch.ones_like(parameter)
        optimizers[name].step()
    rates = {"means": 0.1, "scales": 0.2, "quats": 0.3, "opacities": 0.4, "sh0": 0.5}
    assert set(rates) == set(optimizers)
    for name, rate in rates.items():
        # The first step of Adam is as long as its rate.
        torch.testing.assert_close(before[name] - gaussians.params[name], torch.full_like(before[name], rate))


def test_the_rate_of_the_centres_falls_exponentially() -> None:
    config = GaussiansConfig(means_lr=1e-2, means_lr_final=1e-4)
    rates = [learning_rate(config, "means", progress) for progress in (0.0, 0.5, 1.0)]
    assert rates == pytest.approx([1e-2, 1e-3, 1e-4])


@pytest.mark.parametrize("name", TRAINED)
def test_every_rate_can_fall_and_stays_without_a_last_one(name: str) -> None:
    first = getattr(GaussiansConfig(), f"{name}_lr")
    config = GaussiansConfig(**{f"{name}_lr_final": 0.04 * first})
    optimizers = gaussian_optimizers(ball(replace(config, num_initial=4)), config)
    set_learning_rates(optimizers, config, 0.5, factor=3.0)
    rates = {key: optimizer.param_groups[0]["lr"] for key, optimizer in optimizers.items()}
    constant = {key: 3.0 * getattr(config, f"{key}_lr") for key in TRAINED if key not in (name, "means")}
    assert rates[name] == pytest.approx(3.0 * 0.2 * first)
    assert {key: rates[key] for key in constant} == pytest.approx(constant)


@pytest.mark.parametrize(
    ("name", "shape", "says"),
    [
        ("scales", (59, 3), r"scales has the wrong shape: expected \(60, 3\), found \(59, 3\)"),
        ("quats", (60, 3), r"quats has the wrong shape: expected \(60, 4\)"),
        ("opacities", (60, 1), r"opacities has the wrong shape: expected \(60,\)"),
        ("sh0", (60, 3), r"sh0 has the wrong shape: expected \(60, 1, 3\)"),
        ("shN", (60, 9), r"shN has the wrong shape: expected \(60, K, 3\)"),
        ("means", (60, 2), r"means has the wrong shape: expected \(60, 3\)"),
    ],
)
def test_a_tensor_that_does_not_fit_the_others_is_named(name: str, shape: tuple[int, ...], says: str) -> None:
    params = {key: value.detach() for key, value in small_ball().params.items()}
    with pytest.raises(UserError, match=says):
        Gaussians(params | {name: torch.zeros(shape)})


def test_a_tensor_that_is_missing_is_named() -> None:
    params = {key: value.detach() for key, value in small_ball().params.items()}
    with pytest.raises(UserError, match=r"quats has the wrong shape: expected \(60, 4\), found nothing"):
        Gaussians({key: value for key, value in params.items() if key != "quats"})
    with pytest.raises(UserError, match="needs means"):
        Gaussians({})
