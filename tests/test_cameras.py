"""Cameras: where they stand, what they look at, and what their side is called."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from sdi_gs.cameras import VIEW_WORDS, CameraBatch, orbit_cameras, sample_cameras, view_word, wrap_degrees
from sdi_gs.errors import UserError
from sdi_gs.settings.cameras import CameraConfig, JitterConfig
from sdi_gs.settings.run import RunConfig

AZIMUTHS = (0.0, 37.0, 90.0, 180.0, 270.0, -120.0)
ELEVATIONS = (0.0, 30.0, -10.0, 60.0, 89.0, -90.0)


def orbit(azimuths: tuple[float, ...], elevations: tuple[float, ...], fov_y: float = 40.0) -> CameraBatch:
    count = len(azimuths)
    return orbit_cameras(
        torch.tensor(azimuths, dtype=torch.float64),
        torch.tensor(elevations, dtype=torch.float64),
        torch.full((count,), 2.5, dtype=torch.float64),
        torch.full((count,), fov_y, dtype=torch.float64),
        width=96,
        height=64,
    )


def sampled(count: int, seed: int = 0, progress: float = 1.0, **config: Any) -> CameraBatch:
    generator = torch.Generator().manual_seed(seed)
    return sample_cameras(CameraConfig(**config), count, width=32, height=32, generator=generator, progress=progress)


def pixels(cameras: CameraBatch, points: Tensor) -> Tensor:
    """World points [P, 3] in pixels, [B, P, 2]."""
    ones = torch.ones(len(points), 1, dtype=points.dtype)
    in_camera = torch.cat([points, ones], dim=1) @ cameras.camera_from_world.transpose(1, 2)
    projected = in_camera[..., :3] @ cameras.intrinsics.transpose(1, 2)
    return projected[..., :2] / projected[..., 2:]


def test_camera_axes_are_orthonormal_and_right_handed() -> None:
    rotation = orbit(AZIMUTHS, ELEVATIONS).world_from_camera[:, :3, :3]
    identity = torch.eye(3, dtype=torch.float64).expand_as(rotation)
    torch.testing.assert_close(rotation.transpose(1, 2) @ rotation, identity, atol=1e-12, rtol=0.0)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(6, dtype=torch.float64))


@pytest.mark.parametrize(
    ("azimuth", "elevation", "position"),
    [
        (0.0, 0.0, (2.5, 0.0, 0.0)),
        (90.0, 0.0, (0.0, 2.5, 0.0)),
        (180.0, 0.0, (-2.5, 0.0, 0.0)),
        (-90.0, 0.0, (0.0, -2.5, 0.0)),
        (0.0, 90.0, (0.0, 0.0, 2.5)),
        (90.0, 30.0, (0.0, 2.5 * math.sqrt(0.75), 1.25)),
        (45.0, -90.0, (0.0, 0.0, -2.5)),
    ],
)
def test_cameras_stand_where_their_angles_say(
    azimuth: float, elevation: float, position: tuple[float, float, float]
) -> None:
    camera = orbit((azimuth,), (elevation,))
    torch.testing.assert_close(
        camera.world_from_camera[0, :3, 3], torch.tensor(position, dtype=torch.float64), atol=1e-12, rtol=0.0
    )


def test_cameras_look_at_the_origin() -> None:
    cameras = orbit(AZIMUTHS, ELEVATIONS)
    position, forward = cameras.world_from_camera[:, :3, 3], cameras.world_from_camera[:, :3, 2]
    torch.testing.assert_close(position + 2.5 * forward, torch.zeros_like(position), atol=1e-12, rtol=0.0)
    centre = pixels(cameras, torch.zeros(1, 3, dtype=torch.float64))
    torch.testing.assert_close(centre, torch.tensor([48.0, 32.0], dtype=torch.float64).expand_as(centre))


def test_world_up_is_up_in_the_image_and_the_object_is_not_mirrored() -> None:
    front, left = orbit((0.0, 90.0), (10.0, 10.0)).to("cpu"), torch.tensor([[0.0, 0.2, 0.0]], dtype=torch.float64)
    up = torch.tensor([[0.0, 0.0, 0.2]], dtype=torch.float64)
    assert (pixels(front, up)[:, 0, 1] < 32.0).all()
    torch.testing.assert_close(pixels(front, up)[:, 0, 0], torch.full((2,), 48.0, dtype=torch.float64))
    # Seen from the front, +y lies to the right; the camera on the +y axis has +x to its left.
    assert pixels(front, left)[0, 0, 0] > 48.0
    ahead = torch.tensor([[0.2, 0.0, 0.0]], dtype=torch.float64)
    assert pixels(front, ahead)[1, 0, 0] < 48.0


def test_the_view_matrix_is_the_inverse_of_the_pose() -> None:
    cameras = orbit(AZIMUTHS, ELEVATIONS)
    inverse = torch.linalg.inv(cameras.world_from_camera)
    torch.testing.assert_close(cameras.camera_from_world, inverse, atol=1e-12, rtol=0.0)


@pytest.mark.parametrize("fov_y", [40.0, 90.0])
def test_the_vertical_field_of_view_spans_the_height(fov_y: float) -> None:
    reach = 2.5 * math.tan(math.radians(0.5 * fov_y))
    camera = orbit((0.0,), (0.0,), fov_y)
    edges = torch.tensor([[0.0, 0.0, reach], [0.0, 1.5 * reach, 0.0]], dtype=torch.float64)
    expected = torch.tensor([[48.0, 0.0], [96.0, 32.0]], dtype=torch.float64)
    torch.testing.assert_close(pixels(camera, edges)[0], expected, atol=1e-9, rtol=0.0)


@pytest.mark.parametrize(
    ("azimuth", "elevation", "word"),
    [
        (0.0, 0.0, "front view"),
        (44.9, 0.0, "front view"),
        (-44.9, 0.0, "front view"),
        (315.1, 0.0, "front view"),
        (45.0, 0.0, "side view"),
        (-45.0, 0.0, "side view"),
        (90.0, 60.0, "side view"),
        (135.0, 0.0, "side view"),
        (-135.0, 0.0, "side view"),
        (225.0, 0.0, "side view"),
        (135.1, 0.0, "back view"),
        (180.0, -90.0, "back view"),
        (224.9, 0.0, "back view"),
        (540.0, 0.0, "back view"),
        (0.0, 60.0, "front view"),
        (0.0, 60.1, "overhead view"),
        (180.0, 90.0, "overhead view"),
    ],
)
def test_sides_are_named_by_threestudios_thresholds(azimuth: float, elevation: float, word: str) -> None:
    assert view_word(azimuth, elevation) == word
    assert word in VIEW_WORDS


@pytest.mark.parametrize(("angle", "wrapped"), [(180.0, -180.0), (-180.0, -180.0), (359.0, -1.0), (725.0, 5.0)])
def test_angles_wrap_into_one_turn(angle: float, wrapped: float) -> None:
    assert wrap_degrees(angle) == wrapped


def test_a_batch_names_each_of_its_cameras() -> None:
    cameras = orbit((0.0, 100.0, 200.0, 300.0), (0.0, 0.0, 0.0, 80.0))
    assert cameras.view_words() == ["front view", "side view", "back view", "overhead view"]
    assert len(cameras) == 4


def test_sampled_azimuths_fill_one_sector_each() -> None:
    for seed in range(20):
        azimuths = sampled(8, seed).azimuth_deg.sort().values
        assert (azimuths >= 0.0).all()
        assert (azimuths < 360.0).all()
        gaps = torch.cat([azimuths.diff(), azimuths[:1] + 360.0 - azimuths[-1:]])
        # Neighbours in sectors of 45 degrees are less than two sectors apart.
        assert gaps.max() < 90.0


def test_sectors_are_turned_so_that_every_azimuth_is_as_likely() -> None:
    azimuths = torch.cat([sampled(2, seed).azimuth_deg for seed in range(600)])
    counts = torch.histc(azimuths, bins=8, min=0.0, max=360.0)
    # 150 expected in each; the standard deviation is 11.
    assert counts.min() > 100.0
    assert counts.max() < 200.0


def test_sampled_cameras_keep_to_their_ranges() -> None:
    cameras = sampled(500, elevation_deg=(-10.0, 45.0), distance=(2.0, 3.0), fov_y_deg=(30.0, 60.0))
    distance = cameras.world_from_camera[:, :3, 3].norm(dim=1)
    fov_y = 2.0 * torch.rad2deg(torch.atan(16.0 / cameras.intrinsics[:, 1, 1]))
    for values, low, high in ((cameras.elevation_deg, -10.0, 45.0), (distance, 2.0, 3.0), (fov_y, 30.0, 60.0)):
        spread = 0.02 * (high - low)
        assert low - 1e-3 <= values.min() < low + spread
        assert high - spread < values.max() <= high + 1e-3
        assert values.mean().item() == pytest.approx(0.5 * (low + high), abs=4.0 * spread)


def distance_from_word_middle(cameras: CameraBatch) -> Tensor:
    """Degrees from the nearest of the directions 0, 90, 180 and 270."""
    turns = [
        [abs(wrap_degrees(azimuth - middle)) for middle in (0, 90, 180, 270)]
        for azimuth in cameras.azimuth_deg.tolist()
    ]
    return torch.tensor(turns).min(dim=1).values


@pytest.mark.parametrize("antithetic", [False, True])
@pytest.mark.parametrize(("progress", "reach"), [(0.0, 0.3 * 45.0), (0.2, 0.65 * 45.0), (0.4, 45.0), (1.0, 45.0)])
def test_azimuths_spread_from_the_middles_of_their_view_words(progress: float, reach: float, antithetic: bool) -> None:
    gathered = {"word_spread": 0.3, "word_spread_until": 0.4, "antithetic": antithetic}
    drawn = [sampled(8, seed, progress, **gathered) for seed in range(100)]
    distances = torch.cat([distance_from_word_middle(cameras) for cameras in drawn])
    assert distances.max() <= reach + 1e-3
    assert distances.max() > 0.97 * reach
    for cameras, even in zip(drawn, (sampled(8, seed, antithetic=antithetic) for seed in range(100)), strict=True):
        # The words of a batch, and all else that is random, stay as they were.
        assert cameras.view_words() == even.view_words()
        torch.testing.assert_close(cameras.elevation_deg, even.elevation_deg, rtol=0.0, atol=0.0)
        if antithetic:
            opposite = (cameras.azimuth_deg[1::2] - cameras.azimuth_deg[::2]) % 360.0
            torch.testing.assert_close(opposite, torch.full((4,), 180.0), atol=1e-3, rtol=0.0)


@pytest.mark.parametrize("progress", [0.4, 0.7])
def test_after_their_share_of_the_run_azimuths_are_those_of_no_spread(progress: float) -> None:
    gathered = sampled(8, 3, progress, word_spread=0.0, word_spread_until=0.4)
    assert torch.equal(gathered.world_from_camera, sampled(8, 3).world_from_camera)


def test_antithetic_cameras_face_each_other_in_pairs() -> None:
    for seed in range(20):
        azimuths = sampled(6, seed, antithetic=True).azimuth_deg.view(3, 2)
        apart = [abs(wrap_degrees(float(right - left))) for left, right in azimuths]
        assert apart == pytest.approx([180.0] * 3, abs=1e-3)
        # Together they fill the same sectors as others do.
        gaps = azimuths.flatten().sort().values.diff()
        assert gaps.max() < 120.0


def test_antithetic_azimuths_are_all_as_likely() -> None:
    azimuths = torch.cat([sampled(2, seed, antithetic=True).azimuth_deg for seed in range(600)])
    counts = torch.histc(azimuths, bins=8, min=0.0, max=360.0)
    # 150 expected in each; the standard deviation is 11 or, as halves of a pair, the same.
    assert counts.min() > 100.0
    assert counts.max() < 200.0


@pytest.mark.parametrize("count", [1, 3])
def test_an_odd_number_of_antithetic_cameras_is_refused(count: int) -> None:
    with pytest.raises(UserError, match=f"{count} views do not go: use an even number"):
        sampled(count, antithetic=True)
    with pytest.raises(ValueError, match=f"even views_per_step, got {count}"):
        RunConfig(views_per_step=count, cameras=CameraConfig(antithetic=True))


def test_a_seed_gives_the_same_cameras_again() -> None:
    assert torch.equal(sampled(4, seed=3).world_from_camera, sampled(4, seed=3).world_from_camera)
    assert not torch.equal(sampled(4, seed=3).world_from_camera, sampled(4, seed=4).world_from_camera)


@pytest.mark.parametrize(
    "wrong",
    [
        {"elevation_deg": (10.0, -10.0)},
        {"elevation_deg": (-91.0, 0.0)},
        {"distance": (0.0, 1.0)},
        {"distance": (3.0, 2.0)},
        {"fov_y_deg": (0.0, 40.0)},
        {"fov_y_deg": (40.0, 180.0)},
        {"distance": (math.nan, 1.0)},
    ],
)
def test_ranges_without_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CameraConfig(**wrong)


def test_threestudios_elevations_are_of_one_law_in_a_step_and_of_either_as_often() -> None:
    bounds, count = (-10.0, 45.0), 4000
    steps = [sampled(count, seed=seed, elevation_law="threestudio").elevation_deg for seed in range(60)]
    # Its second law takes the sine of the ends' shares of half a turn: asin(-1 / 9) to asin(1 / 2).
    narrow = [angles for angles in steps if angles.max() < 30.1]
    wide = [angles for angles in steps if angles.max() >= 30.1]
    assert 20 <= len(narrow) <= 40
    for angles in narrow:
        assert angles.min() >= math.degrees(math.asin(-1.0 / 9.0)) - 1e-3
        sines = torch.sin(torch.deg2rad(angles.double()))
        assert sines.mean().item() == pytest.approx(0.5 * (0.5 - 1.0 / 9.0), abs=0.01)
        assert sines.var().item() == pytest.approx((0.5 + 1.0 / 9.0) ** 2 / 12.0, rel=0.1)
    for angles in wide:
        assert angles.mean().item() == pytest.approx(sum(bounds) / 2.0, abs=1.5)
        assert angles.max() > 44.0 and angles.min() < -9.0


def jittered_by(**jitter: float) -> CameraBatch:
    return sampled(5000, jitter=JitterConfig(**jitter), distance=(2.0, 2.0), elevation_deg=(0.0, 0.0))


def test_a_shifted_camera_still_looks_at_the_origin() -> None:
    still, shifted = sampled(5000, distance=(2.0, 2.0), elevation_deg=(0.0, 0.0)), jittered_by(position=0.1)
    shifts = (shifted.world_from_camera - still.world_from_camera)[:, :3, 3]
    assert shifts.abs().max() <= 0.1001
    assert shifts.std(dim=0).tolist() == pytest.approx([0.1 / math.sqrt(3.0)] * 3, rel=0.05)
    middle = pixels(shifted, torch.zeros(1, 3))
    torch.testing.assert_close(middle, torch.full_like(middle, 16.0), atol=1e-3, rtol=0.0)
    # The word that names the view goes by where the camera was put, not by the shift.
    assert torch.equal(shifted.azimuth_deg, still.azimuth_deg)


def test_a_camera_that_looks_beside_the_origin_and_one_that_is_tilted() -> None:
    away = jittered_by(look_at=0.2)
    sideways = torch.linalg.cross(away.world_from_camera[:, :3, 3], away.world_from_camera[:, :3, 2]).norm(dim=-1)
    # The axis passes the origin at the length of two normal components across it, but for the foreshortening.
    assert sideways.square().mean().item() == pytest.approx(2.0 * 0.2**2, rel=0.06)
    tilted = jittered_by(up=0.02)
    roll = torch.asin(tilted.world_from_camera[:, 2, 0])
    assert roll.std().item() == pytest.approx(0.02, rel=0.05)
    for cameras in (away, tilted):
        rotation = cameras.world_from_camera[:, :3, :3]
        identity = torch.eye(3).expand_as(rotation)
        torch.testing.assert_close(rotation.transpose(1, 2) @ rotation, identity, atol=1e-5, rtol=0.0)
        assert torch.linalg.det(rotation).min() > 0.99


def test_no_jitter_draws_nothing() -> None:
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    for generator, config in zip(generators, (CameraConfig(), CameraConfig(jitter=JitterConfig(up=0.02))), strict=True):
        sample_cameras(config, 2, width=8, height=8, generator=generator)
    plain, used = (generator.get_state() for generator in generators)
    expected = torch.Generator().manual_seed(3)
    # The turn, the place in each sector, elevations, distances and fields of view.
    torch.rand((), generator=expected)
    for _ in range(4):
        torch.rand(2, generator=expected)
    assert torch.equal(plain, expected.get_state())
    assert not torch.equal(plain, used)


@pytest.mark.parametrize(("count", "size"), [(4, 4), (12, 4), (6, 3)])
def test_cameras_of_a_group_stand_at_equal_turns_and_one_height(count: int, size: int) -> None:
    ranges: dict[str, Any] = {"elevation_deg": (-10.0, 45.0), "distance": (2.0, 4.0), "fov_y_deg": (30.0, 60.0)}
    cameras = sampled(count, views_per_group=size, **ranges)
    firsts = []
    for group in range(count // size):
        rows = cameras.rows(slice(group * size, (group + 1) * size))
        turns = (rows.azimuth_deg - rows.azimuth_deg[0]) % 360.0
        torch.testing.assert_close(turns, torch.arange(size) * 360.0 / size, atol=1e-3, rtol=0.0)
        for shared in (rows.elevation_deg, rows.intrinsics[:, 0, 0], rows.world_from_camera[:, :3, 3].norm(dim=1)):
            torch.testing.assert_close(shared, shared[:1].expand(size))
        firsts.append((rows.azimuth_deg[0].item() % (360.0 / size), rows.elevation_deg[0].item()))
    assert len(set(firsts)) == count // size
    # One group in each equal part of the turn between two neighbours, however the parts are turned.
    ordered = sorted(first for first, _ in firsts)
    gaps = [later - earlier for earlier, later in pairwise([*ordered, ordered[0] + 360.0 / size])]
    assert max(gaps) <= 2.0 * 360.0 / count + 1e-3


def test_groups_of_one_are_cameras_as_ever() -> None:
    one, ever = sampled(5, views_per_group=1), sampled(5)
    assert torch.equal(one.world_from_camera, ever.world_from_camera)


def test_views_that_are_no_whole_groups_are_refused() -> None:
    with pytest.raises(UserError, match="come in groups of 4, so 6 views do not go: use a multiple of 4"):
        sampled(6, views_per_group=4)
    with pytest.raises(ValueError, match="antithetic draws pairs and views_per_group 4 draws groups"):
        CameraConfig(antithetic=True, views_per_group=4)


def test_relative_distances_show_as_much_of_an_object_at_every_field_of_view() -> None:
    config = CameraConfig(distance=(0.8, 1.0), relative_distance=True, fov_y_deg=(15.0, 60.0), views_per_group=4)
    cameras = sample_cameras(config, 64, width=256, height=256, generator=torch.Generator().manual_seed(0))
    places = cameras.world_from_camera[:, :3, 3].norm(dim=1)
    # Half the height of the plane through the origin that a view shows: threestudio's relative distance.
    shown = places * 128.0 / cameras.intrinsics[:, 1, 1]
    assert shown.min() >= 0.8 - 1e-5 and shown.max() <= 1.0 + 1e-5
    assert shown.max() - shown.min() > 0.15
    nearest, farthest = config.distances
    assert (nearest, farthest) == pytest.approx((0.8 / math.tan(math.pi / 6), 1.0 / math.tan(math.radians(7.5))))
    assert nearest <= places.min() and places.max() <= farthest
    assert config.middle == pytest.approx((0.9 / math.tan(math.radians(18.75)), 37.5))
    assert CameraConfig(distance=(2.0, 4.0)).middle == (3.0, 40.0)
    assert CameraConfig(distance=(2.0, 4.0)).distances == (2.0, 4.0)
