"""Baked textures against an analytic scene: two painted balls whose every ray is known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from sdi_gs.cameras import CameraBatch, camera_rays
from sdi_gs.contracts import DensityField, RenderOutput, cube
from sdi_gs.errors import UserError
from sdi_gs.mesh import texture
from sdi_gs.mesh.extraction import TriangleMesh, mesh_of_field
from sdi_gs.mesh.formats import write_mesh
from sdi_gs.mesh.likeness import mesh_psnr
from sdi_gs.mesh.shading import texture_at
from sdi_gs.mesh.texture import with_texture
from sdi_gs.pictures.framing import training_framing
from sdi_gs.pictures.views import render_views
from sdi_gs.settings.cameras import CameraConfig
from sdi_gs.settings.mesh import MeshConfig

USUAL = training_framing(CameraConfig())
BALLS = (((-0.1, 0.0, 0.0), 0.5), ((0.62, 0.0, 0.0), 0.16))
"""Middle and radius; the small one stands in front of the large one."""


def painted(points: Tensor) -> Tensor:
    """Stripes of red on the large ball, blue on the small one, finer than its triangles."""
    stripes = 0.55 + 0.4 * torch.sin(40.0 * points[..., 2])
    is_large = points[..., 0] < 0.44
    red = torch.stack([stripes, 0.3 * stripes, torch.full_like(stripes, 0.1)], dim=-1)
    blue = torch.tensor([0.0, 0.1, 0.9]).expand_as(red)
    return torch.where(is_large[..., None], red, blue)


class Balls:
    """The balls as exact pictures; as a density their soft copy, whose colours are the same."""

    device, num_points = torch.device("cpu"), 0

    def describe(self) -> str:
        return "two balls"

    def splats(self) -> None:
        return None

    def detached_copy(self) -> Balls:
        return self

    def density(self, *, resolution: int | None = None) -> DensityField:
        def density_of(points: Tensor) -> Tensor:
            depths = [radius - (points - torch.tensor(middle)).norm(dim=-1) for middle, radius in BALLS]
            return 50.0 * torch.sigmoid(60.0 * torch.stack(depths).amax(dim=0))

        return DensityField(density_of=density_of, albedo_of=painted, box=cube(0.85))

    def render(self, cameras: CameraBatch, background: Tensor, *, with_depth: bool = False) -> RenderOutput:
        rays = camera_rays(cameras)
        nearest = torch.full((len(rays),), math.inf)
        for middle, radius in BALLS:
            away = torch.tensor(middle) - rays.origins
            along = (away * rays.directions).sum(dim=-1)
            inside = radius**2 - (away.square().sum(dim=-1) - along.square())
            reached = torch.where(inside > 0, along - inside.clamp_min(0.0).sqrt(), math.inf)
            nearest = torch.minimum(nearest, reached)
        hit = nearest.isfinite()[:, None]
        points = rays.origins + torch.where(hit[:, 0], nearest, 0.0)[:, None] * rays.directions
        shape = (len(cameras), cameras.height, cameras.width)
        colours = torch.where(hit, painted(points), background.repeat_interleave(shape[1] * shape[2], dim=0))
        return RenderOutput(rgb=colours.view(*shape, 3), alpha=hit.float().view(*shape, 1))


@pytest.fixture(scope="module")
def plain() -> TriangleMesh:
    mesh, _ = mesh_of_field(Balls().density(), MeshConfig(resolution=36, keep_share=0.001))
    return mesh


@pytest.fixture(scope="module")
def baked(plain: TriangleMesh) -> TriangleMesh:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texture, "VIEW_SIZE", 224)
        return with_texture(plain, Balls(), USUAL, 512)


def test_the_surface_is_the_same_and_every_face_has_a_place_in_the_picture(
    plain: TriangleMesh, baked: TriangleMesh
) -> None:
    assert baked.texture is not None and baked.texture.picture.shape == (512, 512, 3)
    uv, corners = baked.texture.uv, baked.vertices[baked.faces]
    assert len(uv) == len(baked.vertices) > len(plain.vertices)
    assert uv.min() >= 0.0 and uv.max() <= 1.0
    # The same triangles in any order, each with an area in the picture that is like its own.
    assert np.allclose(np.sort(corners.sum(axis=(1, 2))), np.sort(plain.vertices[plain.faces].sum(axis=(1, 2))))
    a, b, c = (uv[baked.faces[:, corner]] for corner in range(3))
    areas = 0.5 * np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])
    own = 0.5 * np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    assert np.median(areas / own) > 0.02
    # Charts do not overlap.
    assert areas.sum() < 1.0


def test_places_on_the_mesh_have_the_paint_that_is_there(baked: TriangleMesh) -> None:
    assert baked.texture is not None
    weights = np.random.default_rng(0).dirichlet((1.0, 1.0, 1.0), len(baked.faces))[:, :, None]
    points = (baked.vertices[baked.faces] * weights).sum(axis=1)
    found = texture_at(baked.texture, (baked.texture.uv[baked.faces] * weights).sum(axis=1))
    wanted = painted(torch.from_numpy(points).float()).numpy()
    between = np.abs(points[:, 0] - 0.44) < 0.06
    error = np.abs(found - wanted)[~between]
    assert float(np.quantile(error, 0.9)) < 0.12
    assert float(error.mean()) < 0.05
    # Behind the small ball the large one has its own red, though the views from the front see blue there.
    hidden = (points[:, 0] > 0.3) & (points[:, 0] < 0.39)
    assert np.count_nonzero(hidden) > 20
    assert float(found[hidden, 2].max()) < 0.45
    assert float(found[hidden, 2].mean()) < 0.2


def test_a_texture_shows_far_more_than_colours_per_vertex(plain: TriangleMesh, baked: TriangleMesh) -> None:
    cameras = USUAL.ring(3, 128, elevation_deg=25.0)
    wanted = render_views(Balls(), cameras)
    assert mesh_psnr(baked, cameras, wanted) > mesh_psnr(plain, cameras, wanted) + 4.0


@pytest.mark.parametrize("name", ["a.glb", "a.obj"])
def test_another_reader_finds_the_colours_at_their_places(name: str, baked: TriangleMesh, tmp_path: Path) -> None:
    write_mesh(tmp_path / name, baked, name.rpartition(".")[2])
    found: Any = trimesh.load_mesh(tmp_path / name, process=False)
    assert found.visual.kind == "texture"
    colours = found.visual.to_color().vertex_colors[:, :3] / 255.0
    # Back from y up and front +z to the training world.
    points = torch.from_numpy(np.asarray(found.vertices)[:, [2, 0, 1]]).float()
    error = np.abs(colours - painted(points).numpy())[(points[:, 0] - 0.44).abs().numpy() > 0.06]
    assert float(error.mean()) < 0.08


def test_a_textured_obj_is_three_files_and_overwrites_none(baked: TriangleMesh, tmp_path: Path) -> None:
    (tmp_path / "b.png").write_text("mine")
    with pytest.raises(UserError, match=r"b\.png exists and is never overwritten"):
        write_mesh(tmp_path / "b.obj", baked, "obj")
    assert [path.name for path in tmp_path.iterdir()] == ["b.png"]
    write_mesh(tmp_path / "a b.obj", baked, "obj")
    assert (tmp_path / "a b.obj").read_text().startswith("mtllib a b.mtl\nv ")
    assert "map_Kd a b.png" in (tmp_path / "a b.mtl").read_text()


def test_the_same_mesh_is_baked_to_the_same_bits(plain: TriangleMesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texture, "VIEW_SIZE", 64)
    first, second = (with_texture(plain, Balls(), USUAL, 256).texture for _ in range(2))
    assert first is not None and second is not None
    assert np.array_equal(first.picture, second.picture) and np.array_equal(first.uv, second.uv)


def test_more_triangles_than_a_picture_holds_are_refused(plain: TriangleMesh) -> None:
    with pytest.raises(UserError, match="have less than a pixel each of 16 x 16; raise --mesh.texture"):
        with_texture(plain, Balls(), USUAL, 16)
