"""The change of axes, against rotation by matrices and gsplat's own harmonics."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from gsplat.cuda._torch_impl import _quat_to_rotmat, _spherical_harmonics
from torch import Tensor

from sdi_gs.settings.frames import Frame
from sdi_gs.splats.splat_cloud import (
    VIEWER_FROM_TRAIN,
    SplatCloud,
    from_frame,
    in_frame,
    normalized_quats,
    rgb_from_sh_dc,
    rotate_cloud,
    sh_dc_from_rgb,
)

# The axes as the format's description states them: x' = y, y' = -z, z' = -x.
VIEWER_AXES = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, -1.0], [-1.0, 0.0, 0.0]])
ODD_ROTATION = tuple(part / math.sqrt(0.99) for part in (0.3, -0.8, 0.1, 0.5))


def make_cloud(count: int, coefficients: int, seed: int = 0) -> SplatCloud:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return SplatCloud(
        means=draw(count, 3),
        log_scales=draw(count, 3) - 4.0,
        quats=draw(count, 4),
        opacity_logit=draw(count),
        sh_dc=draw(count, 3),
        sh_rest=draw(count, coefficients, 3),
    )


def colours(cloud: SplatCloud, directions: Tensor) -> Tensor:
    """What gsplat shows of a cloud from given directions."""
    degree = math.isqrt(1 + cloud.sh_rest.shape[1]) - 1
    coefficients = torch.cat([cloud.sh_dc[:, None], cloud.sh_rest], dim=1)
    return _spherical_harmonics(degree, directions, coefficients)


def test_means_take_the_viewers_axes() -> None:
    cloud = make_cloud(5, 0)
    x, y, z = cloud.means.unbind(-1)
    assert torch.equal(rotate_cloud(cloud, VIEWER_FROM_TRAIN).means, torch.stack([y, -z, -x], dim=-1))


def test_covariances_turn_with_the_means() -> None:
    cloud = make_cloud(20, 0)
    turned = rotate_cloud(cloud, VIEWER_FROM_TRAIN)

    def covariances(some: SplatCloud) -> Tensor:
        half = _quat_to_rotmat(some.quats) * some.log_scales.exp()[:, None, :]
        return half @ half.transpose(1, 2)

    expected = VIEWER_AXES @ covariances(cloud) @ VIEWER_AXES.T
    torch.testing.assert_close(covariances(turned), expected, rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(turned.quats.norm(dim=-1), torch.ones(20))


@pytest.mark.parametrize("coefficients", [0, 3, 8, 15])
@pytest.mark.parametrize("quaternion", [VIEWER_FROM_TRAIN, ODD_ROTATION], ids=["viewer", "odd"])
def test_a_turned_cloud_shows_the_same_colours_in_turned_directions(
    coefficients: int, quaternion: tuple[float, float, float, float]
) -> None:
    cloud = make_cloud(64, coefficients)
    cloud = replace(cloud, sh_dc=cloud.sh_dc.double(), sh_rest=cloud.sh_rest.double())
    generator = torch.Generator().manual_seed(1)
    directions = torch.nn.functional.normalize(torch.randn(64, 3, generator=generator).double(), dim=-1)
    rotation = _quat_to_rotmat(torch.tensor(quaternion, dtype=torch.float64))
    turned = rotate_cloud(cloud, quaternion)
    torch.testing.assert_close(
        colours(turned, directions @ rotation.T), colours(cloud, directions), rtol=0.0, atol=1e-12
    )


def test_a_harmonic_that_sees_the_front_is_turned_and_not_just_copied() -> None:
    cloud = make_cloud(4, 3)
    assert not torch.allclose(rotate_cloud(cloud, VIEWER_FROM_TRAIN).sh_rest, cloud.sh_rest, atol=0.1)


def test_y_up_is_gltfs_frame() -> None:
    cloud = make_cloud(50, 0)
    x, y, z = cloud.means.unbind(dim=-1)
    assert torch.equal(in_frame(cloud, "y-up").means, torch.stack([y, z, x], dim=-1))


@pytest.mark.parametrize("frame", ["viewer", "train", "y-up"])
def test_there_and_back_is_the_same_cloud(frame: Frame) -> None:
    cloud = make_cloud(50, 15)
    back = from_frame(in_frame(cloud, frame), frame)
    assert torch.equal(back.means, cloud.means)
    torch.testing.assert_close(back.quats, torch.nn.functional.normalize(cloud.quats, dim=-1))
    torch.testing.assert_close(back.sh_rest, cloud.sh_rest, rtol=1e-5, atol=1e-5)


def test_quats_of_extreme_length_are_normalised() -> None:
    quats = torch.tensor([[3e38, 3e38, 0.0, 0.0], [0.0, 1e-30, 0.0, 0.0]])
    expected = torch.tensor([[math.sqrt(0.5), math.sqrt(0.5), 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    torch.testing.assert_close(normalized_quats(quats), expected)


def test_colours_survive_the_constant_harmonic() -> None:
    rgb = torch.tensor([[0.0, 0.5, 1.0], [0.2, 0.7, 0.9]])
    dc = sh_dc_from_rgb(rgb)
    # gsplat adds the half when it shades.
    shown = _spherical_harmonics(0, torch.tensor([[0.0, 0.0, 1.0]] * 2), dc[:, None]) + 0.5
    torch.testing.assert_close(shown, rgb)
    torch.testing.assert_close(rgb_from_sh_dc(dc), rgb)


@pytest.mark.parametrize("part", ["means", "quats", "opacity_logit", "sh_rest"])
def test_parts_of_different_length_are_refused(part: str) -> None:
    cloud = make_cloud(4, 3)
    with pytest.raises(ValueError, match=part if part != "means" else "log_scales"):
        replace(cloud, **{part: getattr(cloud, part)[:3]})


def test_a_number_of_harmonics_between_degrees_is_refused() -> None:
    with pytest.raises(ValueError, match="sh_rest"):
        make_cloud(4, 5)
