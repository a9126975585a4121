"""From where a scene is seen, against the geometry of a pinhole camera."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from sdi_gs.pictures.framing import Framing, framing_of_cloud, in_sight_of, looked_at, training_framing
from sdi_gs.pictures.views import render_views, shows_nothing
from sdi_gs.representations.gaussians import gaussians_from_splats
from sdi_gs.settings.cameras import CameraConfig, LookConfig
from sdi_gs.splats.sight import bulk_of
from sdi_gs.splats.splat_cloud import SplatCloud

USUAL = training_framing(CameraConfig())


def shell(radius: float, middle: tuple[float, float, float] = (0.0, 0.0, 0.0), count: int = 400) -> SplatCloud:
    """Red splats on a sphere, each a twentieth of its radius wide."""
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    return SplatCloud(
        means=directions * radius + torch.tensor(middle),
        log_scales=torch.full((count, 3), math.log(0.05 * radius)),
        quats=torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(count, 4),
        opacity_logit=torch.full((count,), 3.0),
        sh_dc=torch.tensor([1.7, -1.7, -1.7]).expand(count, 3),
        sh_rest=torch.zeros(count, 0, 3),
    )


def test_the_usual_cameras_see_what_the_config_says() -> None:
    assert USUAL == Framing(middle=(0.0, 0.0, 0.0), distance=3.3, fov_y_deg=40.0)
    # The tangent cone of half the field of view touches a ball of this radius.
    assert USUAL.sight == pytest.approx(3.3 * math.sin(math.radians(20.0)))


@pytest.mark.parametrize(("radius", "middle"), [(0.9, (0.0, 0.0, 0.0)), (0.5, (0.3, 0.2, -0.1))])
def test_what_fills_the_usual_sight_is_seen_as_a_run_is(radius: float, middle: tuple[float, float, float]) -> None:
    assert framing_of_cloud(shell(radius, middle), USUAL) is USUAL


@pytest.mark.parametrize(
    ("radius", "middle"),
    [
        (0.5, (5.0, 2.0, -3.0)),
        (0.5, (0.9, 0.0, 0.0)),
        (20.0, (0.0, 0.0, 0.0)),
        (0.01, (0.0, 0.0, 0.0)),
        (3e4, (1e5, 0, 0)),
    ],
)
def test_any_other_cloud_is_wholly_in_the_picture(radius: float, middle: tuple[float, float, float]) -> None:
    cloud = shell(radius, middle)
    framing = framing_of_cloud(cloud, USUAL)
    assert math.dist(framing.middle, middle) < 0.3 * radius
    for cameras in (framing.ring(8, 100, elevation_deg=15.0), framing.ring(4, 100, elevation_deg=-60.0)):
        seen = cloud.means.double() @ cameras.camera_from_world[:, :3, :3].double().mT
        seen = seen + cameras.camera_from_world[:, None, :3, 3].double()
        pixels = seen @ cameras.intrinsics.double().mT
        pixels = pixels[..., :2] / pixels[..., 2:]
        inside = ((pixels > 0.0) & (pixels < 100.0)).all(dim=-1)
        assert inside.double().mean() > 0.98
        # And it fills more than half of it.
        assert (pixels.amax(dim=1) - pixels.amin(dim=1)).min() > 50.0


def test_strays_and_invisible_splats_do_not_move_the_cameras() -> None:
    cloud = shell(0.5, (5.0, 2.0, -3.0))
    expected = bulk_of(cloud)
    cloud.means[:2] += 1000.0
    middle, radius = bulk_of(cloud)
    assert radius < 1.05 * expected[1] and math.dist(middle, expected[0]) < 0.02
    hidden = replace(cloud, opacity_logit=torch.where(torch.arange(400) < 300, -20.0, 3.0))
    hidden.means[:300] += 50.0
    assert math.dist(bulk_of(hidden)[0], expected[0]) < 0.3


def test_what_the_user_gives_goes_first() -> None:
    look = LookConfig(look_at=(1.0, 2.0, 3.0), fov_y_deg=60.0)
    assert looked_at(USUAL, look) == Framing(middle=(1.0, 2.0, 3.0), distance=3.3, fov_y_deg=60.0)
    assert looked_at(USUAL, LookConfig()) == USUAL


def test_a_moved_cloud_looks_from_the_usual_cameras_as_it_does_from_its_own() -> None:
    cloud = shell(2.0, (5.0, 2.0, -3.0))
    framing = framing_of_cloud(cloud, USUAL)
    own = render_views(gaussians_from_splats(cloud), framing.ring(4, 48, elevation_deg=15.0)).rgb
    moved = gaussians_from_splats(in_sight_of(cloud, framing, USUAL))
    torch.testing.assert_close(render_views(moved, USUAL.ring(4, 48, elevation_deg=15.0)).rgb, own, rtol=0.0, atol=2e-4)
    assert (own < 0.9).any()


def test_an_empty_sight_is_noticed() -> None:
    far = gaussians_from_splats(shell(0.5, (0.0, 0.0, 50.0)))
    assert shows_nothing(far, USUAL)
    assert not shows_nothing(far, replace(USUAL, middle=(0.0, 0.0, 50.0)))
