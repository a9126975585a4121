"""The render view: cameras, modes and canvases against closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch, orbit_cameras
from sdi_gs.contracts import GuidedViews, RenderOutput, Representation
from sdi_gs.priors.noise_schedules import scaled_linear_schedule
from sdi_gs.representations.gaussians import Gaussians
from sdi_gs.viewer.labels import Mode
from sdi_gs.viewer.pictures import (
    Pose,
    letterboxed,
    pose_camera,
    render_picture,
    target_picture,
    world_normals,
)

CPU = torch.device("cpu")


def orbit_pose(azimuth: float, elevation: float, *, aspect: float = 1.5, fov: float = 40.0) -> tuple[Pose, CameraBatch]:
    """A pose, and the training camera that stands there."""
    one = [torch.tensor([value]) for value in (azimuth, elevation, 3.0, fov)]
    camera = orbit_cameras(*one, width=int(40 * aspect), height=40)
    rows = tuple(tuple(row) for row in camera.world_from_camera[0].tolist())
    return Pose(world_from_camera=rows, fov_y=math.radians(fov), aspect=aspect), camera


class Plane(Representation):
    """A wall at x = ``at`` that fills every picture; the camera must look along -x."""

    @property
    def device(self) -> torch.device:
        return CPU

    def __init__(self, at: float = 0.0) -> None:
        self.at = at

    def render(self, cameras: CameraBatch, background: Tensor, *, with_depth: bool = False) -> RenderOutput:
        shape = (len(cameras), cameras.height, cameras.width, 1)
        distance = float(cameras.world_from_camera[0, 0, 3]) - self.at
        return RenderOutput(
            rgb=torch.full((*shape[:3], 3), 0.25),
            alpha=torch.ones(shape),
            depth=torch.full(shape, distance) if with_depth else None,
        )


def test_a_clients_camera_is_the_training_camera_that_stands_there() -> None:
    pose, camera = orbit_pose(30.0, 20.0)
    ours = pose_camera(pose, width=60, height=40)
    torch.testing.assert_close(ours.world_from_camera, camera.world_from_camera)
    torch.testing.assert_close(ours.intrinsics, camera.intrinsics)


def test_the_rgb_picture_is_the_representations_own_render(ball: Callable[..., Gaussians]) -> None:
    cloud, background = ball(), (0.1, 0.5, 0.9)
    pose, camera = orbit_pose(75.0, -5.0)
    picture = render_picture(cloud, pose, mode="rgb", background=background, width=60, height=40, device=CPU)
    expected = cloud.render(camera, torch.tensor([background])).rgb[0].detach()
    assert picture.shape == (40, 60, 3)
    np.testing.assert_array_equal(picture, (expected.clamp(0, 1) * 255.0).round().to(torch.uint8).numpy())


def test_rendering_for_a_client_leaves_no_gradients(ball: Callable[..., Gaussians]) -> None:
    cloud = ball()
    render_picture(cloud, orbit_pose(0, 0)[0], mode="rgb", background=(1, 1, 1), width=30, height=20, device=CPU)
    assert all(parameter.grad is None for parameter in cloud.params.values())


def picture_of_plane(mode: Mode) -> np.ndarray:
    pose, _ = orbit_pose(0.0, 0.0)
    return render_picture(Plane(), pose, mode=mode, background=(0, 0, 1), width=30, height=20, device=CPU)  # pyright: ignore[reportAbstractUsage]


def test_a_wall_that_faces_us_has_our_direction_as_its_normal() -> None:
    # World +x, towards the camera, is drawn as (1, 0.5, 0.5).
    np.testing.assert_allclose(picture_of_plane("normal").reshape(-1, 3), [[255, 128, 128]] * 600, atol=1)


def test_a_tilted_wall_has_its_own_normal() -> None:
    _, camera = orbit_pose(0.0, 0.0)
    intrinsics, height, width = camera.intrinsics[0], camera.height, camera.width
    normal = torch.nn.functional.normalize(torch.tensor([1.0, 0.3, -0.2]), dim=0)
    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    rays = torch.stack(
        [
            (columns - intrinsics[0, 2]) / intrinsics[0, 0],
            (rows - intrinsics[1, 2]) / intrinsics[1, 1],
            torch.ones(height, width),
        ],
        dim=-1,
    )
    pose = camera.world_from_camera[0]
    # Along a ray of unit z, the wall through the origin is met at this depth.
    depth = -(pose[:3, 3] @ normal) / ((rays @ pose[:3, :3].T) @ normal)
    found = world_normals(depth, camera)
    torch.testing.assert_close(found[1:-1, 1:-1], normal.expand(height - 2, width - 2, 3), atol=2e-2, rtol=0.0)


def test_an_alpha_picture_is_grey_and_a_wall_is_opaque() -> None:
    assert (picture_of_plane("alpha") == 255).all()


def test_nearer_is_lighter(ball: Callable[..., Gaussians]) -> None:
    assert (picture_of_plane("depth") == picture_of_plane("depth")[0, 0]).all()
    cloud = ball(2)
    with torch.no_grad():
        cloud.params["means"][:] = torch.tensor([[0.8, -0.5, 0.0], [-0.8, 0.5, 0.0]])
        cloud.params["scales"][:] = math.log(0.15)
        cloud.params["opacities"][:] = 6.0
    pose, _ = orbit_pose(0.0, 0.0)
    picture = render_picture(cloud, pose, mode="depth", background=(0, 0, 1), width=90, height=60, device=CPU)
    # The background has no red. From the front, +y is right: the near one lies left.
    row = picture[30, :, 0].astype(int)
    left, right = row[:45][row[:45] > 0], row[45:][row[45:] > 0]
    assert left.min() > right.max() > 0


def test_where_nothing_is_solid_a_depth_picture_shows_the_background(ball: Callable[..., Gaussians]) -> None:
    cloud = ball(5)
    with torch.no_grad():
        cloud.params["opacities"][:] = -8.0
    pose, _ = orbit_pose(0.0, 0.0)
    for mode in ("depth", "normal"):
        picture = render_picture(cloud, pose, mode=mode, background=(0, 0, 1), width=30, height=20, device=CPU)
        assert (picture == [0, 0, 255]).all()


class HalvingPrior:
    """Latents are pictures at half size."""

    name, image_size = "halving", 8
    knows_cameras = False
    schedule = scaled_linear_schedule()

    def embed_prompts(self, prompts: Sequence[str]) -> Tensor:
        raise AssertionError("no prompt is needed to look")

    def encode_images(self, images: Tensor, generator: torch.Generator) -> Tensor:
        raise AssertionError("looking encodes nothing")

    def predict_noise(
        self, noised_latents: Tensor, timestep: int, embeddings: Tensor, cameras: CameraBatch | None = None
    ) -> Tensor:
        raise AssertionError("looking predicts nothing")

    def decode_latents(self, latents: Tensor) -> Tensor:
        return latents.permute(0, 2, 3, 1)


def test_the_target_stands_right_of_the_render_that_it_answers() -> None:
    _, camera = orbit_pose(0.0, 0.0)
    red, green = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0])
    views = GuidedViews(
        cameras=camera,
        rgb=red.expand(2, 8, 8, 3),
        target=green[:, None, None].expand(2, 3, 4, 4),
        timestep=500,
    )
    picture = target_picture(views, HalvingPrior(), aspect=2.0, background=(1.0, 1.0, 1.0))
    assert picture.shape == (8, 16, 3)
    assert (picture[:, :8] == [255, 0, 0]).all()
    assert (picture[:, 8:] == [0, 255, 0]).all()


def test_a_target_that_the_run_has_decoded_is_not_decoded_again() -> None:
    class NeverDecodes(HalvingPrior):
        def decode_latents(self, latents: Tensor) -> Tensor:
            raise AssertionError("decoded again")

    _, camera = orbit_pose(0.0, 0.0)
    blue = torch.tensor([0.0, 0.0, 1.0])
    views = GuidedViews(
        cameras=camera,
        rgb=torch.ones(2, 8, 8, 3),
        target=torch.zeros(2, 3, 4, 4),
        timestep=500,
        pictures=torch.stack([blue.expand(8, 8, 3), torch.zeros(8, 8, 3)]),
    )
    picture = target_picture(views, NeverDecodes(), aspect=2.0, background=(1.0, 1.0, 1.0))
    assert (picture[:, 8:] == [0, 0, 255]).all()


@pytest.mark.parametrize("aspect", [0.5, 1.0, 1.9, 4.0])
def test_a_letterbox_has_the_aspect_and_the_picture_in_its_middle(aspect: float) -> None:
    inner = np.zeros((20, 40, 3), np.uint8)
    boxed = letterboxed(inner, aspect, (1.0, 1.0, 1.0))
    assert boxed.shape[1] / boxed.shape[0] == pytest.approx(aspect, rel=0.03)
    assert min(boxed.shape[0] / 20, boxed.shape[1] / 40) == 1.0
    rows, columns = np.nonzero(boxed[..., 0] == 0)
    assert len(rows) == 800
    assert abs((rows.min() + rows.max() + 1) - boxed.shape[0]) <= 1
    assert abs((columns.min() + columns.max() + 1) - boxed.shape[1]) <= 1
