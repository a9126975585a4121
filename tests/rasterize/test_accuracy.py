"""Pictures and gradients of the CPU backend against float64, every Gaussian against every pixel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sdi_gs.rasterize import rasterization, torch_reference
from sdi_gs.rasterize.spherical_harmonics import harmonic_colors

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
    leaves: dict[str, Tensor],
    scene: Any,
    backgrounds: Tensor | None,
    *,
    render_mode: str = "RGB",
    sh_degree: int | None = None,
    **projection: Any,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """What ``rasterization`` should return, in float64."""
    viewmats, intrinsics = scene.viewmats.double(), scene.Ks.double()
    means, colors = leaves["means"], leaves["colors"]
    gaussians = (means, leaves["quats"], leaves["scales"], leaves["opacities"])
    splats = torch_reference.project(*gaussians, viewmats, intrinsics, scene.width, scene.height, **projection)
    num_cameras = len(viewmats)
    if sh_degree is not None:
        directions = means - torch.linalg.inv(viewmats)[:, None, :3, 3]
        colors = (harmonic_colors(sh_degree, directions, colors) + 0.5).clamp_min(0.0)
    colors = colors.expand(num_cameras, -1, -1)
    background = torch.zeros(num_cameras, colors.shape[-1]) if backgrounds is None else backgrounds
    background = background.to(colors.dtype)
    if render_mode != "RGB":
        no_depth = torch.zeros(num_cameras, 1, dtype=colors.dtype)
        keep = colors.shape[-1] if "RGB" in render_mode else 0
        colors = torch.cat([colors[..., :keep], splats["depths"][..., None]], dim=-1)
        background = torch.cat([background[..., :keep], no_depth], dim=-1)
    rendered, alphas = torch_reference.composite(splats, colors, background, scene.width, scene.height)
    if render_mode.endswith("ED"):
        rendered = torch.cat([rendered[..., :-1], rendered[..., -1:] / alphas.clamp_min(1e-10)], dim=-1)
    return rendered, alphas, splats


def check_against_reference(
    scene: Any, leaves: dict[str, Tensor], *, antialiased: bool = False, packed: bool = False, **options: Any
) -> None:
    """Compare colours, alphas and every gradient, for random gradients of colour and alpha."""
    generator = torch.Generator().manual_seed(1)
    exact_leaves = {name: leaf.detach().double().requires_grad_() for name, leaf in leaves.items()}
    num_cameras = len(scene.viewmats)
    channels = 3 if options.get("sh_degree") is not None else leaves["colors"].shape[-1]
    backgrounds = torch.rand(num_cameras, channels, generator=generator).requires_grad_()
    exact_backgrounds = backgrounds.detach().double().requires_grad_()
    rendered, alphas, meta = rasterization(
        **leaves,
        **scene.cameras(),
        backgrounds=backgrounds,
        rasterize_mode="antialiased" if antialiased else "classic",
        packed=packed,
        **options,
    )
    exact_options = {key: value for key, value in options.items() if key != "absgrad"}
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
    if packed:
        exact_means2d_grad = exact_means2d_grad[meta["camera_ids"], meta["gaussian_ids"]]
    pairs = {name: (leaves[name].grad, exact_leaves[name].grad) for name in leaves}
    pairs["means2d"] = (meta["means2d"].grad, exact_means2d_grad)
    if options.get("render_mode", "RGB") not in ("D", "ED"):
        pairs["backgrounds"] = (backgrounds.grad, exact_backgrounds.grad)
    for name, (grad, exact_grad) in pairs.items():
        assert exact_grad is not None, name
        # Depth alone leaves the colours out of the graph.
        found = torch.zeros_like(exact_grad) if grad is None else grad
        assert found.isfinite().all(), name
        assert relative_error(found, exact_grad) <= MAX_GRADIENT_ERROR, name


@pytest.mark.parametrize("name", SCENES)
def test_pictures_and_gradients_match_float64(name: str, make_scene: Callable[..., Any]) -> None:
    scene = make_scene(**SCENES[name])
    check_against_reference(scene, scene.leaves())


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


@pytest.mark.parametrize("channels", [1, 10, 33])
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
    [{"near_plane": 0.9}, {"far_plane": 2.8}, {"radius_clip": 5.0}, {"eps2d": 0.01}],
    ids=lambda o: next(iter(o)),
)
def test_projection_options_match_float64(options: dict[str, Any], make_scene: Callable[..., Any]) -> None:
    scene = make_scene()
    check_against_reference(scene, scene.leaves(), **options)


def test_absgrad_sums_absolute_pixel_gradients(make_scene: Callable[..., Any]) -> None:
    scene = make_scene(12, width=12, height=9, scales=(0.1, 0.3))
    leaves = scene.leaves()
    rendered, alphas, meta = rasterization(**leaves, **scene.cameras(), packed=False, absgrad=True)
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
    assert relative_error(meta["means2d"].absgrad, expected) <= MAX_GRADIENT_ERROR


def test_gradients_match_finite_differences(make_scene: Callable[..., Any]) -> None:
    # Wide and faint: nothing crosses the alpha cuts within a step, so the picture is smooth in every parameter.
    scene = make_scene(4, width=20, height=20, scales=(0.5, 0.9), opacities=(0.3, 0.5))
    weights = torch.randn(2, 20, 20, 3, generator=torch.Generator().manual_seed(4))

    def loss(leaves: dict[str, Tensor]) -> Tensor:
        rendered, _, _ = rasterization(**leaves, **scene.cameras())
        return (rendered.double() * weights).sum()

    leaves = scene.leaves()
    loss(leaves).backward()
    for name, leaf in leaves.items():
        assert leaf.grad is not None
        direction = torch.randn(leaf.shape, generator=torch.Generator().manual_seed(5))
        step = 2e-3
        with torch.no_grad():
            ahead, behind = (loss({**leaves, name: leaf + sign * step * direction}) for sign in (1.0, -1.0))
        slope = float((ahead - behind) / (2.0 * step))
        assert slope == pytest.approx(float((leaf.grad * direction).sum()), rel=5e-3), name
