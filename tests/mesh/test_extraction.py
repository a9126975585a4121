"""Meshes of analytic fields and of Gaussians: size, colour, orientation, and what is said where there is none."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sdi_gs.contracts import Box, DensityField, cube
from sdi_gs.errors import UserError
from sdi_gs.mesh.extraction import (
    MeshReport,
    TriangleMesh,
    mesh_of_field,
    mesh_of_scene,
)
from sdi_gs.representations.gaussian_density import gaussian_density, visible_box
from sdi_gs.representations.gaussians import SH_C0, Gaussians
from sdi_gs.settings.mesh import MeshConfig

RADIUS = 0.6
PEAK = 100.0
SLOPE = 500.0
CUBE = cube(1.0)
COARSE = MeshConfig(resolution=48)


def sphere(points: Tensor) -> Tensor:
    """100 inside and 0 outside with a straight slope between: 50 at radius 0.6."""
    return (0.5 * PEAK + SLOPE * (RADIUS - points.norm(dim=-1))).clamp(0.0, PEAK)


def meshed(
    density_of: Callable[[Tensor], Tensor], albedo_of: Callable[[Tensor], Tensor], box: Box, config: MeshConfig
) -> tuple[TriangleMesh, MeshReport]:
    return mesh_of_field(DensityField(density_of=density_of, albedo_of=albedo_of, box=box), config)


def radius_at(level: float) -> float:
    return RADIUS + (0.5 * PEAK - level) / SLOPE


def striped(points: Tensor) -> Tensor:
    """A colour that says where a point is."""
    return 0.5 + 0.5 * points


def empty(points: Tensor) -> Tensor:
    return torch.zeros(len(points))


def enclosed_volume(mesh: TriangleMesh) -> float:
    """By the divergence theorem, positive where faces look outwards."""
    a, b, c = (mesh.vertices[mesh.faces[:, corner]] for corner in range(3))
    return float((a * np.cross(b, c)).sum() / 6.0)


def area(mesh: TriangleMesh) -> float:
    a, b, c = (mesh.vertices[mesh.faces[:, corner]] for corner in range(3))
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2.0)


@pytest.mark.parametrize("level", [10.0, 50.0, 90.0])
def test_a_sphere_has_the_radius_area_and_volume_of_its_level(level: float) -> None:
    mesh, report = meshed(sphere, striped, CUBE, MeshConfig(resolution=96, level=level))
    radius = radius_at(level)
    # Along an edge of h = 2 / 95 a distance bends by up to h^2 / (8 radius).
    np.testing.assert_allclose(np.linalg.norm(mesh.vertices, axis=1), radius, atol=1.1e-4)
    assert area(mesh) == pytest.approx(4.0 * math.pi * radius**2, rel=3e-3)
    assert enclosed_volume(mesh) == pytest.approx(4.0 / 3.0 * math.pi * radius**3, rel=3e-3)
    assert report.watertight
    assert not report.cut_off
    assert (report.vertices, report.faces) == (len(mesh.vertices), len(mesh.faces))
    assert len(mesh.vertices) - len(mesh.faces) / 2 == 2, "Euler's formula for a sphere"


def test_normals_point_outwards() -> None:
    mesh, _ = meshed(sphere, striped, CUBE, MeshConfig(resolution=96))
    radial = mesh.vertices / np.linalg.norm(mesh.vertices, axis=1, keepdims=True)
    assert np.einsum("vi,vi->v", mesh.normals, radial).min() > 0.995
    np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1.0, rtol=1e-12)


def test_colours_are_those_of_the_field_at_the_vertices() -> None:
    for config in (COARSE, MeshConfig(resolution=48, max_faces=500)):
        mesh, _ = meshed(sphere, striped, CUBE, config)
        np.testing.assert_allclose(mesh.rgb, 0.5 + 0.5 * mesh.vertices, atol=1e-6)
    too_bright, _ = meshed(sphere, lambda points: 3.0 * points, CUBE, COARSE)
    assert (too_bright.rgb.min(), too_bright.rgb.max()) == (0.0, 1.0)


def test_fewer_triangles_keep_the_shape() -> None:
    mesh, report = meshed(sphere, striped, CUBE, MeshConfig(resolution=96, level=50.0, max_faces=2000))
    assert 1800 <= report.faces <= 2000
    assert report.watertight
    assert enclosed_volume(mesh) == pytest.approx(4.0 / 3.0 * math.pi * RADIUS**3, rel=0.01)
    plenty, _ = meshed(sphere, striped, CUBE, MeshConfig(resolution=96, level=50.0, max_faces=10**6))
    whole, _ = meshed(sphere, striped, CUBE, MeshConfig(resolution=96, level=50.0))
    assert len(plenty.faces) == len(whole.faces)


def balls(*radii_at_x: tuple[float, float]) -> Callable[[Tensor], Tensor]:
    """Hard-edged balls of (radius, x of the centre)."""

    def density_of(points: Tensor) -> Tensor:
        inside = [radius - (points - torch.tensor([x, 0.0, 0.0])).norm(dim=-1) for radius, x in radii_at_x]
        return PEAK * torch.sigmoid(200.0 * torch.stack(inside).amax(dim=0))

    return density_of


@pytest.mark.parametrize(("keep_share", "count", "left_out"), [(1.0, 1, 2), (0.3, 2, 1), (0.0, 3, 0)])
def test_pieces_are_kept_by_their_share_of_the_largest(keep_share: float, count: int, left_out: int) -> None:
    # Volumes in the ratio 1 : 0.42 : 0.015.
    field = balls((0.4, -0.5), (0.3, 0.35), (0.1, 0.85))
    config = MeshConfig(resolution=64, level=50.0, keep_share=keep_share)
    mesh, report = meshed(field, striped, CUBE, config)
    volumes = [4.0 / 3.0 * math.pi * radius**3 for radius in (0.4, 0.3, 0.1)]
    assert enclosed_volume(mesh) == pytest.approx(sum(volumes[:count]), rel=0.03)
    assert report.left_out == left_out
    assert report.watertight


def test_a_closed_hollow_is_filled() -> None:
    mesh, report = meshed(
        lambda points: sphere(points) * (points.norm(dim=-1) > 0.3),
        striped,
        CUBE,
        MeshConfig(resolution=64, keep_share=0.0),
    )
    assert report.left_out == 1
    assert enclosed_volume(mesh) == pytest.approx(4.0 / 3.0 * math.pi * radius_at(25.0) ** 3, rel=0.01)


def test_what_the_box_cuts_off_is_closed_flat_and_told() -> None:
    half = Box(low=(-1.0, -1.0, -1.0), high=(1.0, 1.0, 0.0))
    mesh, report = meshed(sphere, striped, half, MeshConfig(resolution=64, level=50.0))
    assert report.cut_off
    assert report.watertight
    assert "cuts the object off" in report.line()
    assert enclosed_volume(mesh) == pytest.approx(2.0 / 3.0 * math.pi * RADIUS**3, rel=0.06)


def test_the_box_need_not_be_a_cube_nor_around_the_origin() -> None:
    box = Box(low=(1.2, -0.7, -1.7), high=(2.8, 0.7, -0.3))
    centre = torch.tensor([2.0, 0.0, -1.0])
    mesh, report = meshed(lambda points: sphere(points - centre), striped, box, MeshConfig(resolution=64, level=50.0))
    np.testing.assert_allclose(np.linalg.norm(mesh.vertices - centre.numpy(), axis=1), RADIUS, atol=2e-3)
    assert report.watertight
    with pytest.raises(ValueError, match="low < high"):
        Box(low=(0.0, 0.0, 0.0), high=(1.0, 0.0, 1.0))


def test_a_plateau_at_the_level_is_still_watertight() -> None:
    def field(points: Tensor) -> Tensor:
        return torch.where(points.abs().amax(dim=-1) < 0.5, 25.0, 0.0) + 25.0 * (points.norm(dim=-1) < 0.3)

    _, report = meshed(field, striped, CUBE, MeshConfig(resolution=33, level=25.0))
    assert report.watertight


def test_grids_larger_than_one_part_are_evaluated_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = meshed(sphere, striped, CUBE, COARSE)
    monkeypatch.setattr("sdi_gs.mesh.extraction.POINTS_AT_ONCE", 1000)
    parts, _ = meshed(sphere, striped, CUBE, COARSE)
    np.testing.assert_array_equal(whole.vertices, parts.vertices)
    np.testing.assert_array_equal(whole.rgb, parts.rgb)


@pytest.mark.parametrize(
    ("field", "level", "said"),
    [
        (empty, 25.0, "the field is empty, its density is 0 everywhere"),
        (sphere, 250.0, "level 250 is never reached, the density is 100 at most; take a lower one, such as 30"),
        (lambda points: sphere(points) + 30.0, 25.0, "level 25 is exceeded everywhere, the density is 30 at least"),
        (lambda points: sphere(points) / (points[:, 0] > 0), 25.0, "the density is not finite at "),
    ],
)
def test_fields_without_a_surface_are_refused(field: Callable[[Tensor], Tensor], level: float, said: str) -> None:
    with pytest.raises(UserError, match=said) as refusal:
        meshed(field, striped, CUBE, MeshConfig(resolution=24, level=level))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("resolution", 15),
        ("resolution", 100_000),
        ("level", 0.0),
        ("level", float("nan")),
        ("keep_share", 1.5),
        ("max_faces", 3),
    ],
)
def test_nonsense_settings_are_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be .* got {value}"):
        MeshConfig(**{name: value})


@pytest.mark.parametrize("missing", ["skimage.measure", "scipy.sparse", "fast_simplification"])
def test_a_missing_package_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=r'a mesh needs the package \S+: pip install "sdi-gs\[mesh\]"'):
        meshed(sphere, striped, CUBE, MeshConfig(resolution=24, max_faces=100))


def ball_of_gaussians(count: int = 4000, *, radius: float = 0.5) -> Gaussians:
    """A solid ball, red for x > 0 and blue for x < 0, with one large and one transparent floater far away."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
    means = directions * radius * torch.rand(count, 1, generator=generator) ** (1 / 3)
    means[0], means[1] = torch.tensor([9.0, 0.0, 0.0]), torch.tensor([0.0, -50.0, 0.0])
    rgb = torch.where(means[:, :1] > 0, torch.tensor([0.9, 0.1, 0.1]), torch.tensor([0.1, 0.1, 0.9]))
    opacities = torch.full((count,), -1.0)
    opacities[1] = -12.0
    return Gaussians(
        {
            "means": means,
            "scales": torch.full((count, 3), math.log(0.03)),
            "quats": torch.randn(count, 4, generator=generator),
            "opacities": opacities,
            "sh0": (rgb[:, None] - 0.5) / SH_C0,
        }
    )


@pytest.mark.slow
def test_gaussians_are_meshed_where_their_density_passes_the_level() -> None:
    cloud = ball_of_gaussians()
    mesh, report = mesh_of_scene(cloud, MeshConfig(resolution=128))
    assert report.watertight
    assert report.level == 3.0
    density = gaussian_density(cloud).density_of(torch.from_numpy(mesh.vertices)).numpy()
    # The grid's blur keeps this from being exact.
    assert np.median(density) == pytest.approx(3.0, rel=0.1)
    assert enclosed_volume(mesh) == pytest.approx(4.0 / 3.0 * math.pi * 0.5**3, rel=0.25)
    right = mesh.vertices[:, 0] > 0.1
    np.testing.assert_allclose(mesh.rgb[right], np.tile([0.9, 0.1, 0.1], (right.sum(), 1)), atol=0.01)


def test_the_box_of_a_cloud_leaves_its_floaters_out() -> None:
    box = visible_box(ball_of_gaussians())
    assert all(-0.8 < low < -0.5 for low in box.low)
    assert all(0.5 < high < 0.8 for high in box.high)


def test_a_cloud_that_nobody_can_see_is_refused() -> None:
    cloud = ball_of_gaussians(10)
    with torch.no_grad():
        cloud.params["means"][:] = float("nan")
    with pytest.raises(UserError, match="none of the 10 Gaussians can be seen"):
        mesh_of_scene(cloud, COARSE)
