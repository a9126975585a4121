"""Renders against closed forms, and the conventions of cameras, backgrounds and determinism."""

from __future__ import annotations

import math
from collections.abc import Callable

import numba
import numpy as np
import pytest
import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.toybox.objects import PlacedObject, Scene, canonical_object
from sdi_gs.toybox.renderer import ToyboxRender, occupied, render_scenes, signed_distance

CamerasAt = Callable[..., CameraBatch]

DISTANCE = 3.3
BALL = canonical_object("ball", "red")
BALL_RADIUS = 0.72


def ray_directions(cameras: CameraBatch, index: int) -> Tensor:  # [H, W, 3], z component 1 in the camera frame
    """World directions of the pixel centres."""
    rows, columns = torch.meshgrid(torch.arange(cameras.height), torch.arange(cameras.width), indexing="ij")
    pixels = torch.stack([columns + 0.5, rows + 0.5, torch.ones_like(rows)], dim=-1).float()
    local = pixels @ torch.linalg.inv(cameras.intrinsics[index]).T
    return local @ cameras.world_from_camera[index, :3, :3].T


def world_points(render: ToyboxRender, cameras: CameraBatch, index: int) -> Tensor:  # [H, W, 3]
    """Where the surfaces are that an image shows."""
    return cameras.world_from_camera[index, :3, 3] + render.depth[index] * ray_directions(cameras, index)


def test_ball_has_the_depth_and_normals_of_a_sphere(cameras_at: CamerasAt) -> None:
    cameras = cameras_at([(0.0, 0.0), (70.0, 35.0)])
    render = render_scenes([(BALL,)] * 2, cameras)
    for b in range(2):
        eye = cameras.world_from_camera[b, :3, 3].double()
        direction = ray_directions(cameras, b).double()
        # |eye + z * direction| = radius, nearer root.
        a = direction.square().sum(-1)
        half_b = (direction * eye).sum(-1)
        discriminant = half_b**2 - a * (eye @ eye - BALL_RADIUS**2)
        inside = discriminant > 0.02 * a
        depth = (-half_b - discriminant.clamp_min(0).sqrt()) / a
        assert inside.sum() > 500
        torch.testing.assert_close(render.depth[b, ..., 0][inside].double(), depth[inside], atol=2e-4, rtol=0)
        normal = (eye + depth[..., None] * direction) / BALL_RADIUS
        torch.testing.assert_close(render.normal[b][inside].double(), normal[inside], atol=2e-3, rtol=0)


@pytest.mark.parametrize("size", [33, 64, 128])
def test_ball_covers_the_area_of_its_outline(size: int, cameras_at: CamerasAt) -> None:
    render = render_scenes([(BALL,)], cameras_at([(20.0, 0.0)], size=size))
    focal = 0.5 * size / math.tan(math.radians(20.0))
    radius = focal * BALL_RADIUS / math.sqrt(DISTANCE**2 - BALL_RADIUS**2)
    assert render.alpha.sum().item() == pytest.approx(math.pi * radius**2, rel=4e-3)


def test_edge_of_a_cube_covers_its_share_of_the_pixels(cameras_at: CamerasAt) -> None:
    # Seen face on, the near face of the cube is a square whose half side in pixels is known.
    size = 64
    cube = canonical_object("cube", "blue")
    half = 0.49 * 1.02
    render = render_scenes([(cube,)], cameras_at([(0.0, 0.0)], size=size))
    focal = 0.5 * size / math.tan(math.radians(20.0))
    side = 2.0 * focal * half / (DISTANCE - half)
    middle_row = render.alpha[0, size // 2, :, 0]
    # The rounded edge (0.05) hides a little of the square's border behind its nearest points.
    assert middle_row.sum().item() == pytest.approx(side, abs=0.75)
    assert render.depth[0, size // 2, size // 2, 0].item() == pytest.approx(DISTANCE - half, abs=1e-4)


def test_pixels_are_blended_over_the_background_by_alpha(cameras_at: CamerasAt) -> None:
    cameras = cameras_at([(30.0, 20.0)] * 2)
    scene: Scene = (canonical_object("robot", "green"),)
    background = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.5, 0.25]])
    render = render_scenes([scene, scene], cameras, background)
    torch.testing.assert_close(render.alpha[0], render.alpha[1], atol=0, rtol=0)
    difference = render.rgb[1] - render.rgb[0]
    torch.testing.assert_close(difference, (1.0 - render.alpha[0]) * background[1], atol=1e-6, rtol=0)
    assert ((render.alpha > 0.05) & (render.alpha < 0.95)).sum() > 50


def test_one_background_serves_all_images(cameras_at: CamerasAt) -> None:
    cameras = cameras_at([(0.0, 0.0), (90.0, 0.0)])
    render = render_scenes([(), ()], cameras, (0.1, 0.2, 0.3))
    torch.testing.assert_close(render.rgb, torch.tensor([0.1, 0.2, 0.3]).expand(2, 64, 64, 3))


def test_empty_scene_is_empty(cameras_at: CamerasAt) -> None:
    render = render_scenes([()], cameras_at([(0.0, 0.0)]))
    assert render.alpha.abs().max() == 0
    assert render.depth.abs().max() == 0
    assert render.normal.abs().max() == 0


def marker(colour: str, position: tuple[float, float, float]) -> PlacedObject:
    return PlacedObject(class_name="ball", colour=colour, proportions=(0.5, 0.5), position=position, scale=0.2)


def centre_of(rgb: Tensor, target: Tensor) -> tuple[float, float] | None:
    """Mean column and row, in [-1, 1], of the pixels with the hue of a colour."""
    hue = rgb / rgb.sum(-1, keepdim=True).clamp_min(1e-6)
    rows, columns = torch.nonzero((hue - target / target.sum()).abs().amax(-1) < 0.08, as_tuple=True)
    if len(rows) == 0:
        return None
    size = rgb.shape[0]
    return 2.0 * columns.float().mean().item() / size - 1.0, 2.0 * rows.float().mean().item() / size - 1.0


def test_front_is_seen_from_azimuth_zero_with_the_y_side_on_the_right_and_z_up(cameras_at: CamerasAt) -> None:
    body = PlacedObject(class_name="ball", colour="white", proportions=(0.5, 0.5), scale=0.7)
    scene: Scene = (
        body,
        marker("red", (0.5, 0.0, 0.0)),
        marker("blue", (0.0, 0.7, 0.0)),
        marker("green", (0.0, 0.0, 0.7)),
    )
    views = [(0.0, 0.0), (90.0, 0.0), (180.0, 0.0), (270.0, 0.0)]
    images = render_scenes([scene] * 4, cameras_at(views)).rgb
    red, blue, green = torch.tensor([0.9, 0.1, 0.1]), torch.tensor([0.12, 0.28, 0.92]), torch.tensor([0.12, 0.66, 0.18])
    front, right, back, left = (centre_of(image, red) for image in images)
    assert front == pytest.approx((0.0, 0.0), abs=0.05)
    assert back is None
    # Somebody at +y has the front (+x) on the left hand.
    assert right is not None and right[0] < -0.3
    assert left is not None and left[0] > 0.3
    beside, above = centre_of(images[0], blue), centre_of(images[0], green)
    assert beside is not None and beside[0] > 0.4 and abs(beside[1]) < 0.05
    assert above is not None and above[1] < -0.4 and abs(above[0]) < 0.05


def test_near_object_hides_the_far_one(cameras_at: CamerasAt) -> None:
    scene: Scene = (marker("red", (-0.5, 0.0, 0.0)), marker("blue", (0.5, 0.0, 0.0)))
    front, back = render_scenes([scene] * 2, cameras_at([(0.0, 0.0), (180.0, 0.0)])).rgb[:, 32, 32]
    assert front[2] > 2.0 * front[0]
    assert back[0] > 2.0 * back[2]


def test_light_belongs_to_the_point_and_not_to_the_viewer(cameras_at: CamerasAt) -> None:
    cameras = cameras_at([(0.0, 10.0), (35.0, 25.0)], size=128)
    render = render_scenes([(BALL,)] * 2, cameras)
    points = world_points(render, cameras, 0)[render.alpha[0, ..., 0] == 1.0]
    colours = render.rgb[0][render.alpha[0, ..., 0] == 1.0]
    view = cameras.camera_from_world[1]
    local = points @ view[:3, :3].T + view[:3, 3]
    pixels = local @ cameras.intrinsics[1].T
    columns, rows = (pixels[:, :2] / pixels[:, 2:]).floor().long().clamp(0, 127).unbind(1)
    covered = render.alpha[1, rows, columns, 0] == 1.0
    visible = covered & ((render.depth[1, rows, columns, 0] - local[:, 2]).abs() < 0.03)
    assert visible.sum() > 1000
    # Half a pixel of shift is all that may differ.
    assert (render.rgb[1, rows, columns][visible] - colours[visible]).abs().max() < 0.03


def test_turned_object_looks_the_same_to_a_camera_that_turns_with_it(cameras_at: CamerasAt) -> None:
    house = canonical_object("house", "red")
    turned = PlacedObject(class_name="house", colour="red", proportions=house.proportions, yaw_deg=90.0)
    render = render_scenes([(house,), (turned,)], cameras_at([(20.0, 15.0), (110.0, 15.0)]))
    torch.testing.assert_close(render.alpha[0], render.alpha[1], atol=1e-3, rtol=0)
    assert (render.depth[0] - render.depth[1]).abs().mean() < 1e-3


def test_occupied_agrees_with_what_is_seen(cameras_at: CamerasAt) -> None:
    cameras = cameras_at([(25.0, 20.0)])
    scene: Scene = (canonical_object("mug", "pink"),)
    render = render_scenes([scene], cameras)
    solid = render.alpha[0, ..., 0] == 1.0
    eye, surface = cameras.world_from_camera[0, :3, 3], world_points(render, cameras, 0)[solid]
    ahead = torch.nn.functional.normalize(surface - eye, dim=-1)
    # At grazing incidence a short way along the ray does not lead inside, so go along the normal there.
    facing = -(ahead * render.normal[0][solid]).sum(-1) > 0.3
    assert facing.sum() > 300
    before = occupied(scene, (surface - 0.01 * ahead)[facing])
    behind = occupied(scene, (surface + 0.01 * ahead)[facing])
    # Where two shapes meet within a pixel, the depth is that of the one that weighs more: a few pixels.
    assert before.float().mean() < 0.005
    assert behind.float().mean() > 0.995
    assert signed_distance(scene, surface[facing]).abs().quantile(0.99) < 1e-3


def test_same_scene_gives_the_same_bytes_for_any_number_of_threads(cameras_at: CamerasAt) -> None:
    cameras = cameras_at([(float(10 * k), 15.0) for k in range(6)])
    scenes: list[Scene] = [(canonical_object("car", "yellow"),)] * 6
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)  # pyright: ignore
        first = render_scenes(scenes, cameras)
        numba.set_num_threads(1)
        second = render_scenes(scenes, cameras)
    finally:
        numba.set_num_threads(threads)
    for name in ("rgb", "alpha", "depth", "normal"):
        assert torch.equal(getattr(first, name), getattr(second, name))
        assert getattr(first, name).dtype == torch.float32


def test_images_lie_between_black_and_white(cameras_at: CamerasAt) -> None:
    scenes: list[Scene] = [(canonical_object("snowman", "white"),), (canonical_object("mug", "black"),)]
    rgb = render_scenes(scenes, cameras_at([(0.0, 30.0), (0.0, 30.0)])).rgb.numpy()
    assert rgb.min() >= 0.0 and rgb.max() <= 1.0
    assert np.isfinite(rgb).all()


def test_wrong_counts_are_refused(cameras_at: CamerasAt) -> None:
    cameras = cameras_at([(0.0, 0.0), (90.0, 0.0)])
    with pytest.raises(ValueError, match="one scene per camera"):
        render_scenes([(BALL,)], cameras)
    with pytest.raises(ValueError, match="background has shape"):
        render_scenes([(BALL,)] * 2, cameras, torch.ones(3, 3))
