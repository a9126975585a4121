"""The projection in meta against gsplat's torch version, and culling against the CUDA rule written out again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from gsplat.cuda import _torch_impl

from sdi_gs.rasterize import rasterization, torch_reference


def project(scene: Any, **options: Any) -> dict[str, Any]:
    leaves = scene.leaves()
    cameras = scene.cameras()
    _, _, meta = rasterization(**leaves, **cameras, packed=False, **options)
    return meta | {"leaves": leaves}


def test_image_plane_values_match_gsplat(make_scene: Callable[..., Any]) -> None:
    scene = make_scene(1000)
    meta = project(scene, rasterize_mode="antialiased")
    covariances, _ = _torch_impl._quat_scale_to_covar_preci(scene.quats.double(), scene.scales.double(), True, False)
    assert covariances is not None
    _, means2d, depths, conics, compensations = _torch_impl._fully_fused_projection(
        scene.means.double(),
        covariances,
        scene.viewmats.double(),
        scene.Ks.double(),
        scene.width,
        scene.height,
        calc_compensations=True,
    )
    assert compensations is not None
    seen = (meta["radii"] > 0).all(dim=-1)
    # The second camera stands at the edge of the ball: some Gaussians are behind it, some beside its picture.
    assert seen[0].sum() > 900 and 50 < seen[1].sum() < 800
    for name, expected in (
        ("means2d", means2d),
        ("depths", depths),
        ("conics", conics),
        ("opacities", scene.opacities * compensations),
    ):
        torch.testing.assert_close(meta[name][seen].double(), expected[seen], rtol=2e-5, atol=2e-5)
        if name != "opacities":
            assert (meta[name][~seen] == 0).all()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"radius_clip": 4.0},
        {"near_plane": 0.8, "far_plane": 2.9},
        {"rasterize_mode": "antialiased", "eps2d": 1.0},
        {"camera_model": "ortho"},
    ],
    ids=["defaults", "radius_clip", "planes", "antialiased", "ortho"],
)
def test_radii_follow_the_cuda_rule(options: dict[str, Any], make_scene: Callable[..., Any]) -> None:
    scene = make_scene(3000, scales=(0.003, 0.08), opacities=(0.0, 1.0))
    if options.get("camera_model") == "ortho":
        scene.Ks[:, [0, 1], [0, 1]] /= 2.5
    radii = project(scene, **options)["radii"]
    exact: dict[str, Any] = {key: value for key, value in options.items() if key != "rasterize_mode"}
    gaussians: dict[str, Any] = scene.leaves(torch.float64)
    del gaussians["colors"]
    cameras = scene.cameras() | {"viewmats": scene.viewmats.double(), "Ks": scene.Ks.double()}
    expected = torch_reference.project(
        **gaussians,
        **cameras,
        antialiased="rasterize_mode" in options,
        **exact,
    )["radii"]
    assert 0 < (expected > 0).all(dim=-1).float().mean() < 1
    # A value that rounds up differently in single precision may differ by one.
    assert (radii != expected).float().mean() < 1e-3
    both = ((radii > 0) & (expected > 0)).all(dim=-1)
    assert (radii - expected)[both].abs().max() <= 1


def test_zero_quaternion_means_no_rotation(make_scene: Callable[..., Any]) -> None:
    scene = make_scene(20)
    scene.quats[:10] = 0.0
    scene.quats[10:] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    zero = project(scene)["conics"]
    scene.quats[:10] = torch.tensor([2.0, 0.0, 0.0, 0.0])
    torch.testing.assert_close(zero, project(scene)["conics"])


def test_gaussians_that_are_not_drawn_get_no_gradient(make_scene: Callable[..., Any]) -> None:
    scene = make_scene()
    scene.means[:50] += torch.tensor([0.0, 0.0, -9.0])
    leaves = scene.leaves()
    cameras = scene.cameras() | {"viewmats": scene.viewmats[:1], "Ks": scene.Ks[:1]}
    rendered, alphas, meta = rasterization(**leaves, **cameras, packed=False)
    assert (meta["radii"][0, :50] == 0).all()
    (rendered.sum() + alphas.sum()).backward()
    for name, leaf in leaves.items():
        assert leaf.grad is not None
        assert (leaf.grad[:50] == 0).all(), name
        assert (leaf.grad[50:] != 0).any(), name


@pytest.mark.parametrize("size", [1e3, 1e12, 1e30])
def test_huge_gaussians_stay_inside_the_image(size: float, make_scene: Callable[..., Any]) -> None:
    scene = make_scene(30)
    scene.scales[::3] = size
    scene.means[1::3] *= size
    leaves = scene.leaves()
    rendered, alphas, meta = rasterization(**leaves, **scene.cameras(), packed=False)
    (rendered.sum() + alphas.sum()).backward()
    assert rendered.isfinite().all() and alphas.isfinite().all() and (alphas <= 1.0).all()
    assert (meta["tiles_per_gauss"] <= 9).all() and (meta["tiles_per_gauss"] >= 0).all()
    assert len(meta["flatten_ids"]) == meta["tiles_per_gauss"].sum()
    assert meta["flatten_ids"].bincount().max() <= 9
