"""Metrics that need neither weights nor a truth: divergence, shape, pieces, normals, T3Bench's averaging."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sdi_gs.evaluation.evaluate import evaluate
from sdi_gs.evaluation.extent import Matter, extent_of, matter_of
from sdi_gs.evaluation.floating import connected, floating_share
from sdi_gs.evaluation.foreign_scenes import BlankScene, mesh_scene
from sdi_gs.evaluation.icosphere import icosphere
from sdi_gs.evaluation.layouts import normals_from_depth
from sdi_gs.evaluation.metrics.divergence import DIVERGENCE, edge_alpha, empty_views
from sdi_gs.evaluation.metrics.image_reward import t3bench_quality
from sdi_gs.evaluation.metrics.shape import SHAPE, saturation, sharpness
from sdi_gs.evaluation.protocol_views import cameras_of
from sdi_gs.representations.gaussians import Gaussians, gaussians_from_splats
from sdi_gs.settings.protocols import ViewOptions, protocol_with
from sdi_gs.splats.splat_cloud import SplatCloud

SMALL = protocol_with("orbit", ViewOptions(count=4, size=64))


def cloud_at(means: Tensor, *, scale: float = 0.05, opacity: float = 3.0) -> Gaussians:
    count = len(means)
    cloud = SplatCloud(
        means=means.float(),
        log_scales=torch.full((count, 3), math.log(scale)),
        quats=torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(count, 1),
        opacity_logit=torch.full((count,), opacity),
        sh_dc=torch.linspace(-1.5, 1.5, 3 * count).reshape(count, 3),
        sh_rest=torch.zeros(count, 0, 3),
    )
    return gaussians_from_splats(cloud)


def ball(count: int = 400, *, stretch: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    points = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)
    return 0.6 * points * torch.rand(count, 1, generator=generator) ** (1 / 3) * torch.tensor(stretch)


def scores(scene: Gaussians | BlankScene) -> dict[str, object]:
    return evaluate(scene, "a thing", metrics=[DIVERGENCE, SHAPE], protocol=SMALL).scores


def test_a_sound_object_has_not_diverged() -> None:
    found = scores(cloud_at(ball()))
    assert (found["diverged"], found["diverged_as"], found["empty_views"]) == (False, None, 0.0)
    # The ball of the bulk is fitted with a margin of a tenth: it covers less than pi / 4 / 1.21 of a picture.
    assert 0.3 < float(str(found["alpha_coverage"])) < 0.65
    assert float(str(found["box_ratio"])) > 0.8


@pytest.mark.parametrize(
    ("kind", "scene"),
    [
        ("empty", BlankScene()),
        ("empty", cloud_at(ball(), opacity=-8.0)),
        ("flat", cloud_at(ball(stretch=(1.0, 1.0, 0.0)), scale=0.005)),
        ("full", cloud_at(torch.cat([ball(20), 1e-3 * ball(20)]), scale=3.0)),
    ],
)
def test_what_came_to_nothing_is_named(kind: str, scene: Gaussians | BlankScene) -> None:
    # The sphere is fitted to the splats' own size; what fills the sight stands at the published distance.
    protocol = replace(SMALL, distance=2.0) if kind == "full" else SMALL
    found = evaluate(scene, "a thing", metrics=[DIVERGENCE], protocol=protocol).scores
    assert (found["diverged"], found["diverged_as"]) == (True, kind)


def test_views_are_empty_by_mv_sdis_test() -> None:
    rng = np.random.default_rng(0)
    pictures = np.stack(
        [
            np.full((16, 16, 3), 255, np.uint8),
            rng.integers(0, 256, (16, 16, 3)).astype(np.uint8),
            rng.integers(0, 8, (16, 16, 3)).astype(np.uint8),
            (250 + rng.integers(0, 6, (16, 16, 3))).astype(np.uint8),
        ]
    )
    values = pictures.astype(np.float32) / 255.0
    expected = [float(picture.mean()) < 0.02 or float(picture.std()) < 0.012 for picture in values]
    assert expected == [True, False, True, True]
    assert empty_views(pictures) == 0.75


def test_edges_are_all_four() -> None:
    alpha = np.zeros((1, 4, 4), np.uint8)
    alpha[0, 0, 0] = alpha[0, 3, 1] = alpha[0, 1, 3] = 255
    alpha[0, 1, 1] = 255
    assert edge_alpha(alpha) == pytest.approx(3 / 12)


def test_what_floats_is_what_does_not_touch() -> None:
    body, far = ball(300).double(), torch.tensor([[2.0, 2.0, 2.0]]).repeat(30, 1).double()
    far += 0.01 * torch.randn(30, 3, generator=torch.Generator().manual_seed(1)).double()
    weights = torch.cat([torch.full((300,), 1.0), torch.full((30,), 0.5)]).double()
    points, sizes = torch.cat([body, far]), torch.full((330,), 0.06).double()
    share = floating_share(Matter(points=points, weights=weights, sizes=sizes))
    assert share == pytest.approx(15.0 / 315.0, abs=1e-9)
    assert floating_share(Matter(points=body, weights=weights[:300], sizes=sizes[:300])) == 0.0


def test_pieces_are_scipys() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    filled = torch.rand(9, 9, 9, generator=torch.Generator().manual_seed(2)) < 0.06
    expected, count = ndimage.label(filled.numpy(), structure=np.ones((3, 3, 3)))
    found = connected(filled).numpy()
    pairs = set(zip(expected.ravel().tolist(), found.ravel().tolist(), strict=True))
    assert len(pairs) == count + 1
    assert len({pair[1] for pair in pairs}) == count + 1
    assert count > 5


def test_sharpness_and_saturation_are_of_the_object_alone() -> None:
    size = 12
    rgb = np.full((1, size, size, 3), 255, np.uint8)
    rgb[0, :, : size // 2] = np.where((np.indices((size, size // 2)).sum(axis=0) % 2)[..., None], 200, 100)
    rgb[0, :, : size // 2, 2] = 100
    alpha = np.zeros((1, size, size), np.uint8)
    alpha[0, 2:-2, 1:4] = 255
    light = rgb[0] @ np.array([0.2126, 0.7152, 0.0722]) / 255.0
    expected = [
        4 * light[y, x] - light[y - 1, x] - light[y + 1, x] - light[y, x - 1] - light[y, x + 1]
        for y in range(2, size - 2)
        for x in range(1, 4)
    ]
    assert sharpness(rgb, alpha) == pytest.approx(np.sqrt(np.mean(np.square(expected))), rel=1e-5)
    assert saturation(rgb, alpha) == pytest.approx(np.mean([100 / 255, 0.0]))
    assert sharpness(rgb, np.zeros_like(alpha)) is saturation(rgb, np.zeros_like(alpha)) is None


def test_t3benchs_quality_is_its_scripts() -> None:
    rewards = np.random.default_rng(4).normal(size=(5, 162))
    sphere = icosphere(2)
    neighbours = [np.flatnonzero(row).tolist() for row in sphere.neighbours]
    scores = dict(enumerate(rewards.max(axis=0)))
    for _ in range(3):
        scores = {
            place: (scores[place] + sum(scores[other] for other in neighbours[place])) / (len(neighbours[place]) + 1)
            for place in scores
        }
    assert t3bench_quality(rewards) == pytest.approx(max(scores.values()) * 20 + 50)


def test_normals_of_a_sphere_point_outwards() -> None:
    cameras = cameras_of(protocol_with("orbit", ViewOptions(count=3, size=96)), None)
    poses, inverse = cameras.world_from_camera, cameras.intrinsics.inverse()
    pixels = torch.arange(96) + 0.5
    y, x = torch.meshgrid(pixels, pixels, indexing="ij")
    rays = torch.einsum("bij,hwj->bhwi", inverse, torch.stack([x, y, torch.ones_like(x)], dim=-1))
    world = torch.einsum("bij,bhwj->bhwi", poses[:, :3, :3], rays)
    origin = poses[:, None, None, :3, 3]
    a, b, c = (world**2).sum(-1), 2.0 * (world * origin).sum(-1), (origin**2).sum(-1) - 0.25
    root = b**2 - 4.0 * a * c
    depth = (-b - root.clamp_min(0.0).sqrt()) / (2.0 * a)
    found = normals_from_depth(depth[..., None], cameras)
    points = origin + depth[..., None] * world
    # Away from the outline, where neighbours lie behind.
    inside = root > 0.4 * root.amax()
    cosines = (found * torch.nn.functional.normalize(points, dim=-1)).sum(-1)[inside]
    assert cosines.min() > 0.995


def test_a_mesh_is_seen_in_its_place_and_colours(tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    box = trimesh.creation.box(extents=(20.0, 40.0, 10.0))
    box.visual.face_colors = np.tile([200, 40, 40, 255], (len(box.faces), 1))
    box.export(tmp_path / "box.ply")
    scene = mesh_scene(tmp_path / "box.ply")
    # Viewer axes have y up and the front along z: x' = y, y' = z, z' = x.
    sides = scene.vertices.max(axis=0) - scene.vertices.min(axis=0)
    np.testing.assert_allclose(sides / sides.max(), [0.25, 0.5, 1.0], atol=1e-6)
    extent = extent_of(scene, matter_of(scene))
    assert extent is not None
    np.testing.assert_allclose(extent.middle, (0.0, 0.0, 0.0), atol=0.15)
    cameras = cameras_of(protocol_with("orbit", ViewOptions(count=2, size=64, elevation_deg=0.0)), extent)
    render = scene.render(cameras, torch.zeros(2, 3), with_depth=True)
    assert render.depth is not None
    seen = render.alpha[0, ..., 0] == 1.0
    assert torch.allclose(render.rgb[0][seen], torch.tensor([200.0, 40.0, 40.0]) / 255.0, atol=1e-5)
    front = float(cameras.world_from_camera[0, 0, 3]) - float(scene.vertices[:, 0].max())
    assert float(render.depth[0][seen].min()) == pytest.approx(front, rel=1e-4)
    assert 0.0 < float(seen.float().mean()) < 0.6
