"""Pictures and gradients of the CPU backend against float64, every Gaussian against every pixel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from gsplat.cuda import _torch_impl
from torch import Tensor

from sdi_gs.rasterize import rasterization, torch_reference

MAX_COLOR_ERROR = 5e-5
MAX_GRADIENT_ERROR = 1e-4

SCENES: dict[str, dict[str, Any]] = {
    "ordinary": {},
    "opaque enough to stop early": {"scales": (0.05, 0.3), "opacities": (0.3, 0.998)},
    "alpha cut at 0.999": {"num_gaussians": 200, "scales": (0.05, 0.2), "opacities": (0.9999, 1.0)},
    "smaller than a pixel": {"num_gaussians": 1500, "scales": (0.0005, 0.002)},
    "needles": {"scales": (0.0005, 0.4)},
    "at the visibility limit": {"opacities": (0.0, 0.02), "scales": (0.05, 0.2)},
    "sides that are no multiple of a tile": {"width": 50, "height": 37},
    "one pixel": {"width": 1, "height": 1, "scales": (0.1, 0.3)},
    "one Gaussian": {"num_gaussians": 1, "scales": (0.1, 0.3)},
}


def relative_error(value: Tensor, truth: Tensor) -> float:
    return float((value - truth).norm() / truth.norm().clamp_min(1e-12))


def reference_render(
    leaves: dict[str, Tensor], scene: Any, backgrounds: Tensor | None, **options: Any
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """What ``rasterization`` should return, in float64."""
    gaussians: dict[str, Any] = {"quats": None, "scales": None, "viewmats": scene.viewmats.double()} | leaves
    cameras = {"Ks": scene.Ks.double(), "width": scene.width, "height": scene.height}
    return torch_reference.render(**gaussians, **cameras, backgrounds=backgrounds, **options)


def check_against_reference(
    scene: Any, leaves: dict[str, Tensor], *, views: bool = True, antialiased: bool = False, **options: Any
) -> None:
    """Compare colours, alphas and every gradient, for random gradients of colour and alpha.

    ``leaves`` are the Gaussians; with ``views`` the view matrices get a gradient too.
    """
    generator = torch.Generator().manual_seed(1)
    if views:
        leaves = leaves | {"viewmats": scene.viewmats.clone().requires_grad_()}
    exact_leaves = {name: leaf.detach().double().requires_grad_() for name, leaf in leaves.items()}
    num_cameras = len(scene.viewmats)
    channels = 3 if options.get("sh_degree") is not None else leaves["colors"].shape[-1]
    backgrounds = torch.rand(num_cameras, channels, generator=generator).requires_grad_()
    exact_backgrounds = backgrounds.detach().double().requires_grad_()
    given: dict[str, Any] = {"quats": None, "scales": None, **scene.cameras(), **leaves}
    rendered, alphas, meta = rasterization(
        **given, backgrounds=backgrounds, rasterize_mode="antialiased" if antialiased else "classic", **options
    )
    exact_options = {key: value for key, value in options.items() if key not in ("absgrad", "packed")}
    exact_rendered, exact_alphas, splats = reference_render(
        exact_leaves, scene, exact_backgrounds, antialiased=antialiased, **exact_options
    )
    assert rendered.shape == exact_rendered.shape and alphas.shape == exact_alphas.shape
    scale = exact_rendered.detach().abs().max().clamp_min(1.0)
    assert (rendered - exact_rendered).abs().max() <= MAX_COLOR_ERROR * scale
    assert (alphas - exact_alphas).abs().max() <= MAX_COLOR_ERROR
    color_weights = torch.randn(rendered.shape, generator=generator)
    alpha_weights = torch.randn(alphas.shape, generator=generator)
    meta["means2d"].retain_grad()
    splats["means2d"].retain_grad()
    ((rendered * color_weights).sum() + (alphas * alpha_weights).sum()).backward()
    ((exact_rendered * color_weights).sum() + (exact_alphas * alpha_weights).sum()).backward()
    exact_means2d_grad = splats["means2d"].grad
    assert exact_means2d_grad is not None
    if options.get("packed", True):
        exact_means2d_grad = exact_means2d_grad[meta["camera_ids"], meta["gaussian_ids"]]
    pairs = {name: (leaves[name].grad, exact_leaves[name].grad) for name in leaves}
    pairs["means2d"] = (meta["means2d"].grad, exact_means2d_grad)
    pairs["backgrounds"] = (backgrounds.grad, exact_backgrounds.grad)
    if options.get("render_mode") in ("D", "ED"):
        # Depth alone leaves the colours out of the graph.
        for name in ("colors", "backgrounds"):
            grad, exact_grad = pairs.pop(name)
            assert grad is None and not (exact_grad is not None and exact_grad.any())
    for name, (grad, exact_grad) in pairs.items():
        assert grad is not None and exact_grad is not None, name
        assert grad.isfinite().all(), name
        expected = symmetric(exact_grad) if name == "covars" else exact_grad
        assert relative_error(grad, expected) <= MAX_GRADIENT_ERROR, name


def symmetric(gradient: Tensor) -> Tensor:  # [N, 3, 3]
    """The gradient of covariances when the upper triangle stands for both, as gsplat reads them."""
    return gradient.triu() + gradient.tril(-1).mT


def covariances(scene: Any) -> Tensor:  # [N, 3, 3]
    matrix, _ = _torch_impl._quat_scale_to_covar_preci(scene.quats, scene.scales, True, False)
    assert matrix is not None
    return matrix


@pytest.mark.parametrize("views", [False, True])
@pytest.mark.parametrize("name", SCENES)
def test_pictures_and_gradients_match_float64(name: str, views: bool, make_scene: Callable[..., Any]) -> None:
    scene = make_scene(**SCENES[name])
    check_against_reference(scene, scene.leaves(), views=views, packed=False)


ORTHO_SCENES: dict[str, dict[str, Any]] = {
    **{name: SCENES[name] for name in ("ordinary", "smaller than a pixel", "needles", "one pixel", "one Gaussian")},
    "opaque enough to stop early": {"scales": (0.05, 0.15), "opacities": (0.9, 0.9999)},
}


@pytest.mark.parametrize("name", ORTHO_SCENES)
def test_parallel_projection_matches_float64(name: str, make_scene: Callable[..., Any]) -> None:
    scene = as_ortho(make_scene(**ORTHO_SCENES[name]))
    check_against_reference(scene, scene.leaves(), camera_model="ortho", packed=False)


def as_ortho(scene: Any) -> Any:
    """The scene with pixels per unit for focal lengths: the image then shows a part of the ball."""
    scene.Ks[:, [0, 1], [0, 1]] /= 2.5
    return scene


@pytest.mark.parametrize(
    "options",
    [
        {"render_mode": "RGB+ED"},
        {"render_mode": "D"},
        {"antialiased": True},
        {"antialiased": True, "packed": True, "near_plane": 0.9},
        {"radius_clip": 3.0, "eps2d": 0.1},
    ],
    ids=str,
)
def test_options_of_parallel_projection_match_float64(options: dict[str, Any], make_scene: Callable[..., Any]) -> None:
    scene = as_ortho(make_scene(scales=(0.05, 0.1), opacities=(0.3, 0.7)))
    check_against_reference(scene, scene.leaves(), camera_model="ortho", **options)


@pytest.mark.parametrize("camera_model", ["pinhole", "ortho"])
@pytest.mark.parametrize("name", ["ordinary", "opaque enough to stop early", "smaller than a pixel", "needles"])
def test_covariances_in_place_of_shapes_match_float64(
    name: str, camera_model: str, make_scene: Callable[..., Any]
) -> None:
    scene = make_scene(**SCENES[name])
    if camera_model == "ortho":
        scene = as_ortho(scene)
    leaves = scene.leaves()
    del leaves["quats"], leaves["scales"]
    leaves["covars"] = covariances(scene).requires_grad_()
    check_against_reference(scene, leaves, camera_model=camera_model, packed=False)


@pytest.mark.parametrize("packed", [False, True])
def test_antialiased_covariances_match_float64(packed: bool, make_scene: Callable[..., Any]) -> None:
    scene = make_scene(scales=(0.003, 0.02))
    leaves = scene.leaves()
    del leaves["quats"], leaves["scales"]
    leaves["covars"] = covariances(scene).requires_grad_()
    check_against_reference(scene, leaves, antialiased=True, packed=packed)


def test_only_the_upper_triangle_of_covariances_is_read(make_scene: Callable[..., Any]) -> None:
    scene = make_scene(50)
    covars = covariances(scene)
    given = {"means": scene.means, "quats": None, "scales": None, **scene.cameras()}
    given |= {"opacities": scene.opacities, "colors": scene.colors}
    whole, _, _ = rasterization(**given, covars=covars)
    upper, _, _ = rasterization(**given, covars=covars.triu())
    assert torch.equal(whole, upper)


def test_flat_covariances_render_like_their_quats_and_scales(make_scene: Callable[..., Any]) -> None:
    # Singular ones, some along the axes: their pivots are zero or pure rounding.
    scene = make_scene(300, scales=(0.05, 0.2))
    scene.scales[:100, 0] = 0.0
    scene.scales[100:200, :2] = 0.0
    scene.quats[::2] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    leaves = scene.leaves()
    shaped, _, _ = rasterization(**leaves, **scene.cameras())
    leaves |= {"quats": None, "scales": None}
    given, _, _ = rasterization(**leaves, **scene.cameras(), covars=covariances(scene))
    torch.testing.assert_close(given, shaped, rtol=0, atol=1e-4)


@pytest.mark.parametrize("render_mode", ["D", "ED", "RGB+D", "RGB+ED"])
def test_depth_modes_match_float64(render_mode: str, make_scene: Callable[..., Any]) -> None:
    # Opaque enough that no expected depth divides by a vanishing alpha.
    scene = make_scene(scales=(0.1, 0.2), opacities=(0.3, 0.7))
    check_against_reference(scene, scene.leaves(), render_mode=render_mode)


@pytest.mark.parametrize("packed", [False, True])
def test_antialiasing_matches_float64(packed: bool, make_scene: Callable[..., Any]) -> None:
    scene = make_scene(scales=(0.003, 0.02))
    check_against_reference(scene, scene.leaves(), antialiased=True, packed=packed)


@pytest.mark.parametrize("render_mode", ["RGB", "RGB+ED"])
def test_packed_gives_the_same_as_float64(render_mode: str, make_scene: Callable[..., Any]) -> None:
    scene = make_scene(scales=(0.05, 0.1))
    check_against_reference(scene, scene.leaves(), packed=True, render_mode=render_mode)


@pytest.mark.parametrize("channels", [1, 10, 32, 33])
def test_any_number_of_channels_matches_float64(channels: int, make_scene: Callable[..., Any]) -> None:
    scene = make_scene(100, channels=channels, scales=(0.05, 0.2))
    check_against_reference(scene, scene.leaves())


@pytest.mark.parametrize("packed", [False, True])
def test_colors_per_camera_match_float64(packed: bool, make_scene: Callable[..., Any]) -> None:
    scene = make_scene()
    leaves = scene.leaves()
    leaves["colors"] = torch.stack([leaves["colors"], 1.0 - leaves["colors"]]).detach().requires_grad_()
    check_against_reference(scene, leaves, packed=packed)


@pytest.mark.parametrize("sh_degree", [0, 1, 2, 3])
@pytest.mark.parametrize("per_camera", [False, True])
def test_harmonic_colors_match_float64(sh_degree: int, per_camera: bool, make_scene: Callable[..., Any]) -> None:
    scene = make_scene()
    leaves = scene.leaves()
    num_gaussians = len(scene.means)
    shape = (2, num_gaussians, 16, 3) if per_camera else (num_gaussians, 16, 3)
    leaves["colors"] = (0.4 * torch.randn(shape, generator=torch.Generator().manual_seed(2))).requires_grad_()
    check_against_reference(scene, leaves, packed=per_camera, sh_degree=sh_degree)


@pytest.mark.parametrize(
    "options",
    [{"near_plane": 0.9}, {"far_plane": 2.8}, {"radius_clip": 5.0}, {"eps2d": 0.01}, {"absgrad": True}],
    ids=lambda o: next(iter(o)),
)
def test_projection_options_match_float64(options: dict[str, Any], make_scene: Callable[..., Any]) -> None:
    scene = make_scene()
    check_against_reference(scene, scene.leaves(), **options)


@pytest.mark.parametrize("packed", [False, True])
def test_absgrad_sums_absolute_pixel_gradients(packed: bool, make_scene: Callable[..., Any]) -> None:
    scene = make_scene(12, width=12, height=9, scales=(0.1, 0.3))
    leaves = scene.leaves()
    rendered, alphas, meta = rasterization(**leaves, **scene.cameras(), packed=packed, absgrad=True)
    weights = torch.randn(rendered.shape, generator=torch.Generator().manual_seed(3))
    (rendered * weights).sum().backward()
    exact_rendered, _, splats = reference_render(scene.leaves(torch.float64), scene, None)
    expected = torch.zeros_like(splats["means2d"])
    for camera in range(2):
        for y in range(9):
            for x in range(12):
                pixel = (exact_rendered[camera, y, x] * weights[camera, y, x]).sum()
                (gradient,) = torch.autograd.grad(pixel, splats["means2d"], retain_graph=True)
                expected += gradient.abs()
    if packed:
        expected = expected[meta["camera_ids"], meta["gaussian_ids"]]
    assert relative_error(meta["means2d"].absgrad, expected) <= MAX_GRADIENT_ERROR


@pytest.mark.parametrize("camera_model", ["pinhole", "ortho"])
def test_gradients_match_finite_differences(camera_model: Any, make_scene: Callable[..., Any]) -> None:
    # Wide and faint: nothing crosses the alpha cuts within a step, so the picture is smooth in every parameter.
    scene = make_scene(4, width=20, height=20, scales=(0.5, 0.9), opacities=(0.3, 0.5))
    weights = torch.randn(2, 20, 20, 3, generator=torch.Generator().manual_seed(4))

    def loss(leaves: dict[str, Any]) -> Tensor:
        given: dict[str, Any] = {"quats": None, "scales": None, **scene.cameras(), **leaves}
        rendered, _, _ = rasterization(**given, camera_model=camera_model)
        return (rendered.double() * weights).sum()

    shaped = scene.leaves() | {"viewmats": scene.viewmats.clone().requires_grad_()}
    given = scene.leaves() | {"covars": covariances(scene).requires_grad_()}
    del given["quats"], given["scales"]
    for leaves, names in ((shaped, list(shaped)), (given, ["covars"])):
        loss(leaves).backward()
        for name in names:
            leaf = leaves[name]
            assert leaf.grad is not None
            direction = torch.randn(leaf.shape, generator=torch.Generator().manual_seed(5))
            if name == "viewmats":
                direction[:, 3] = 0.0
            step = 2e-3
            with torch.no_grad():
                ahead, behind = (loss({**leaves, name: leaf + sign * step * direction}) for sign in (1.0, -1.0))
            slope = float((ahead - behind) / (2.0 * step))
            assert slope == pytest.approx(float((leaf.grad * direction).sum()), rel=5e-3), name
