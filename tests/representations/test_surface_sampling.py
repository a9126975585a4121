"""The warm start against analytic fields: where the Gaussians lie, how, and what they look like.

The fields' own pictures come from ray marching in float64 with 400 samples a ray, written here.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import pytest
import torch
from gsplat.utils import normalized_quat_to_rotmat
from torch import Tensor

from sdi_gs.cameras import CameraBatch, orbit_cameras
from sdi_gs.errors import UserError
from sdi_gs.representations.gaussians import SH_C0, Gaussians
from sdi_gs.representations.surface_sampling import (
    WarmStart,
    _absorptions,
    _quats_along_z,
    surface_gaussians,
)

Field = Callable[[Tensor], Tensor]


def ball(radius: float, peak: float, steepness: float) -> Field:
    """Density that falls from ``peak`` to 0 around ``radius``."""
    return lambda points: peak * torch.sigmoid(steepness * (radius - points.norm(dim=-1)))


def ring(peak: float, steepness: float) -> Field:
    """A torus around z, of radii 0.55 and 0.22."""

    def density_of(points: Tensor) -> Tensor:
        from_axis = points[..., :2].norm(dim=-1) - 0.55
        return peak * torch.sigmoid(steepness * (0.22 - torch.hypot(from_axis, points[..., 2])))

    return density_of


def colourful(points: Tensor) -> Tensor:
    return 0.5 + 0.45 * torch.sin(6.0 * points)


@functools.cache
def marched(density_of: Field) -> Callable[[CameraBatch, Tensor], Tensor]:
    """The field's own pictures by brute force; those of the same cameras and background are marched once."""
    known: dict[tuple[int, tuple[float, ...]], Tensor] = {}

    def render_of(cameras: CameraBatch, background: Tensor) -> Tensor:
        key = (id(cameras), tuple(background.flatten().tolist()))
        if key not in known:
            known[key] = march(cameras, background)
        return known[key]

    def march(cameras: CameraBatch, background: Tensor) -> Tensor:
        rows, columns = torch.meshgrid(
            torch.arange(cameras.height).double() + 0.5, torch.arange(cameras.width).double() + 0.5, indexing="ij"
        )
        edges = torch.linspace(2.2, 4.4, 401).double()
        middles, step = 0.5 * (edges[1:] + edges[:-1]), 2.2 / 400
        pictures = []
        for pose, intrinsics, behind in zip(
            cameras.world_from_camera.double(), cameras.intrinsics.double(), background.double(), strict=True
        ):
            x = (columns - intrinsics[0, 2]) / intrinsics[0, 0]
            y = (rows - intrinsics[1, 2]) / intrinsics[1, 1]
            directions = torch.stack([x, y, torch.ones_like(x)], dim=-1) @ pose[:3, :3].T
            directions = torch.nn.functional.normalize(directions, dim=-1)
            points = pose[:3, 3] + middles[:, None] * directions[..., None, :]
            depths = density_of(points) * step
            weights = (1.0 - torch.exp(-depths)) * torch.exp(depths - depths.cumsum(dim=-1))
            picture = (weights[..., None] * colourful(points)).sum(dim=-2)
            pictures.append(picture + (1.0 - weights.sum(dim=-1, keepdim=True)) * behind)
        return torch.stack(pictures).float()

    return render_of


def cameras_at(azimuths: list[float], elevation: float, size: int = 48) -> CameraBatch:
    one = torch.ones(len(azimuths))
    return orbit_cameras(torch.tensor(azimuths), elevation * one, 3.3 * one, 40.0 * one, width=size, height=size)


CALIBRATION = cameras_at([0.0, 90.0, 180.0, 270.0], 15.0)
# Views that calibration has not seen.
UNSEEN = cameras_at([17.0, 77.0, 137.0, 197.0, 257.0, 317.0], 32.0)
HARD_BALL = ball(0.6, 300.0, 150.0)


def started(density_of: Field, count: int, seed: int = 0) -> WarmStart:
    return surface_gaussians(
        density_of,
        colourful,
        marched(density_of),
        CALIBRATION,
        count=count,
        radius=1.0,
        generator=torch.Generator().manual_seed(seed),
    )


@pytest.fixture(scope="module")
def hard_ball() -> WarmStart:
    return started(HARD_BALL, 4000)


@pytest.fixture(scope="module")
def small_hard_ball() -> WarmStart:
    return started(HARD_BALL, 1000)


@pytest.mark.parametrize(
    "density_of",
    [
        pytest.param(ball(0.6, 200.0, 100.0), id="hard ball", marks=pytest.mark.slow),
        pytest.param(ball(0.6, 15.0, 15.0), id="soft ball"),
        pytest.param(ball(0.6, 4.0, 30.0), id="fog", marks=pytest.mark.slow),
        pytest.param(ring(300.0, 150.0), id="hard ring", marks=pytest.mark.slow),
        pytest.param(ring(20.0, 20.0), id="soft ring", marks=pytest.mark.slow),
    ],
)
def test_the_first_render_is_nearer_to_the_field_than_fields_come_to_the_truth(density_of: Field) -> None:
    start = started(density_of, 6000)
    # A field that is itself 30 dB from the truth loses 3 dB at most with 30 dB from the field.
    background = torch.full((6, 3), 0.5)
    shown = Gaussians(start.params).render(UNSEEN, background).rgb
    error = (shown - marched(density_of)(UNSEEN, background)).square().mean().item()
    assert -10.0 * math.log10(error) > 30.0
    assert -10.0 * math.log10(start.mse) > 30.0


def test_gaussians_lie_on_the_surface_evenly(hard_ball: WarmStart) -> None:
    means = hard_ball.params["means"].double()
    radii = means.norm(dim=-1)
    assert ((radii > 0.5) & (radii < 0.66)).double().mean() > 0.995
    # Archimedes: heights of points that are uniform on a sphere are uniform themselves.
    shares = (0.5 + 0.5 * means[:, 2] / radii).sort().values
    uniform = (torch.arange(len(shares)) + 0.5) / len(shares)
    assert (shares - uniform).abs().max() < 1.63 / math.sqrt(len(shares)), "Kolmogorov-Smirnov at 1 %"


def test_gaussians_lie_flat_and_wear_the_albedo(hard_ball: WarmStart) -> None:
    params = hard_ball.params
    normals = normalized_quat_to_rotmat(params["quats"])[..., 2]
    outwards = torch.nn.functional.normalize(params["means"], dim=-1)
    assert (normals * outwards).sum(dim=-1).quantile(0.01) > 0.95
    scales = params["scales"].exp()
    assert torch.equal(scales[:, 0], scales[:, 1])
    assert (scales[:, 2] < 0.6 * scales[:, 0]).double().mean() > 0.9
    rgb = 0.5 + SH_C0 * params["sh0"][:, 0]
    assert (rgb - colourful(params["means"])).abs().mean() < 0.05


def test_widths_follow_the_spacing(hard_ball: WarmStart, small_hard_ball: WarmStart) -> None:
    starts = (small_hard_ball, hard_ball)
    widths = [start.params["scales"][:, 0].exp().median() / start.factors["width"] for start in starts]
    # A surface's spacing goes with the root of the count.
    assert (widths[0] / widths[1]).item() == pytest.approx(2.0, rel=0.1)


def test_a_seed_decides_the_start(small_hard_ball: WarmStart) -> None:
    again, other = (started(HARD_BALL, 1000, seed).params for seed in (0, 1))
    for name, value in small_hard_ball.params.items():
        assert torch.equal(value, again[name])
        assert value.isfinite().all()
    assert not torch.equal(again["means"], other["means"])


@pytest.mark.parametrize("density", [0.5, 3.0, 50.0])
def test_lines_are_absorbed_as_often_as_in_a_homogeneous_ball(density: float) -> None:
    def homogeneous(points: Tensor) -> Tensor:
        return density * (points.norm(dim=-1) < 0.6)

    num_rays = 20_000
    hits = _absorptions(homogeneous, num_rays, 1.0, 256, torch.Generator().manual_seed(0))
    # Chords of a ball are 2 r sqrt(1 - u) long with u uniform; the mean of 1 - exp(-density chord) in closed form.
    depth = 2.0 * 0.6 * density
    share = 0.6**2 * (1.0 - 2.0 / depth**2 * (1.0 - (1.0 + depth) * math.exp(-depth)))
    assert len(hits.points) / num_rays == pytest.approx(share, abs=4.0 * math.sqrt(share / num_rays) + 0.002)
    assert hits.points.norm(dim=-1).max() < 0.6


def test_quaternions_carry_z_into_any_direction() -> None:
    normals = torch.nn.functional.normalize(torch.randn(500, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    normals[:3] = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0], [1e-5, 0.0, -1.0]])
    quats = _quats_along_z(normals)
    torch.testing.assert_close(quats.norm(dim=-1), torch.ones(500))
    torch.testing.assert_close(normalized_quat_to_rotmat(quats)[..., 2], normals, atol=2e-3, rtol=0.0)


def test_an_empty_field_is_refused() -> None:
    with pytest.raises(UserError, match=r"the field is nearly empty: 0 of \d+ rays"):
        started(lambda points: points[..., 0] * 0.0, 20)


def test_too_few_gaussians_are_refused() -> None:
    with pytest.raises(UserError, match="8 Gaussians are too few to cover a surface: give more than 8"):
        started(HARD_BALL, 8)
