"""Looking at a finished cloud."""

from __future__ import annotations

import pytest
import torch

from sdi_gs.cameras import orbit_cameras
from sdi_gs.pictures.views import render_views, ring_cameras, split_cameras
from sdi_gs.representations.initial_gaussians import gaussian_ball
from sdi_gs.settings.cameras import CameraConfig
from sdi_gs.settings.gaussians import GaussiansConfig

CONFIG = CameraConfig(distance=(2.0, 4.0), fov_y_deg=(30.0, 50.0))


def test_a_ring_starts_in_front_and_goes_round_at_the_mean_distance() -> None:
    ring = ring_cameras(CONFIG, 8, 32, elevation_deg=15.0)
    assert ring.azimuth_deg.tolist() == [0, 45, 90, 135, 180, 225, 270, 315]
    expected = orbit_cameras(
        torch.tensor([0.0]), torch.tensor([15.0]), torch.tensor([3.0]), torch.tensor([40.0]), width=32, height=32
    )
    torch.testing.assert_close(ring.world_from_camera[:1], expected.world_from_camera)
    torch.testing.assert_close(ring.intrinsics[:1], expected.intrinsics)
    positions = ring.world_from_camera[:, :3, 3]
    torch.testing.assert_close(positions.norm(dim=-1), torch.full((8,), 3.0))


@pytest.mark.parametrize("count", [1, 8, 11])
def test_batches_of_cameras_are_the_cameras(count: int) -> None:
    ring = ring_cameras(CONFIG, count, 32, elevation_deg=0.0)
    parts = list(split_cameras(ring, 4))
    assert max(len(part) for part in parts) <= 4
    assert torch.equal(torch.cat([part.world_from_camera for part in parts]), ring.world_from_camera)
    assert torch.equal(torch.cat([part.azimuth_deg for part in parts]), ring.azimuth_deg)


def test_many_views_look_as_each_does_alone_and_carry_no_gradient() -> None:
    ball = gaussian_ball(
        GaussiansConfig(num_initial=50, initial_opacity=0.7),
        generator=torch.Generator().manual_seed(0),
        device=torch.device("cpu"),
    )
    ring = ring_cameras(CONFIG, 11, 24, elevation_deg=15.0)
    views = render_views(ball, ring, (0.2, 0.4, 0.6))
    assert not views.rgb.requires_grad
    assert views.rgb.shape == (11, 24, 24, 3)
    assert views.alpha.shape == (11, 24, 24, 1)
    for index, camera in enumerate(split_cameras(ring, 1)):
        alone = ball.render(camera, torch.tensor([[0.2, 0.4, 0.6]]))
        assert torch.equal(views.rgb[index], alone.rgb[0].clamp(0.0, 1.0))
        assert torch.equal(views.alpha[index], alone.alpha[0])
