"""Check "rasterizer": a device's rasteriser draws what the reference draws, with the same gradients.

On CUDA, gsplat is compared with the numba kernels; on a CPU, the numba kernels with torch operations in float64.

Letters: C cameras, N Gaussians, H W pixels, K harmonic bases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdi_gs.doctor.check_setup import CheckSetup
from sdi_gs.doctor.rows import Row, failed, worst
from sdi_gs.priors.layout import in_one_line
from sdi_gs.rasterize import rasterization, torch_reference
from sdi_gs.rasterize.scenes import BallScene, ball_scene

Rasterize = Callable[..., tuple[Tensor, Tensor, dict[str, Any]]]

PIXEL_LIMIT = 1e-4
"""Limit for a channel in [0, 1], and for a depth as a share of the scene's. The sides round float32 in different orders
(docs/reports/rasterizer.md: 2e-6 against float64), and CUDA uses a fast exponential."""
FLIP_SHARE = 1e-3
"""Share of pixels, radii and visible Gaussians that may differ by more. Rounding decides for alphas near 1/255, radii
near a whole number of pixels, and boxes that touch the border."""
FLIP_LIMIT = 0.01
"""Limit for those pixels: a Gaussian with an alpha of 1/255 is drawn or not, and colours are below 2."""
GRADIENT_LIMIT = 1e-3
"""Limit for the relative L2 error of a gradient; CUDA adds up in no fixed order, and pixels may differ as above."""
RADIUS_LIMIT = 1.0
"""Limit in pixels: radii are rounded up, so that rounding changes them by one."""

_DEPTH_SCALE = 4.0
"""Largest depth in the scenes, in scene units."""
_HARMONICS_SPREAD = 0.2
"""Keeps colours below 2 and makes some negative, so that clamping is covered."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One side's result for a case, on the CPU in float64."""

    image: Tensor  # [C, H, W, 3]
    alpha: Tensor  # [C, H, W, 1]
    depth: Tensor  # [C, H, W, 1] scene units, expected where something is drawn
    radii: Tensor  # [C, N, 2] pixels
    gradients: dict[str, Tensor]


def check_rasterizer(
    setup: CheckSetup, *, tested: Rasterize = rasterization, oracle: Rasterize | None = None
) -> Iterator[Row]:
    """Yield a row per quantity with the worst of all cases; ``tested`` and ``oracle`` replace the two sides."""
    if oracle is None:
        oracle = rasterization if setup.device.type == "cuda" else in_float64
    # Opaque enough that no expected depth divides by a vanishing alpha, yet transparent enough to see through.
    scene = ball_scene(
        setup.size.gaussians,
        width=setup.size.image_size,
        height=setup.size.image_size,
        scales=(0.02, 0.1),
        opacities=(0.2, 0.6),
    )
    errors: dict[str, dict[str, float]] = {}
    for case, options in _cases().items():
        try:
            ours = _draw(tested, scene, options, setup.device)
        except Exception as error:  # One failing case must not hide the others.
            yield failed(case, in_one_line(error))
            continue
        theirs = _draw(oracle, scene, options, setup.reference)
        for quantity, error in _errors(ours, theirs).items():
            errors.setdefault(quantity, {})[case] = error
    for quantity, figures in errors.items():
        limit, unit = _limit(quantity)
        yield worst(quantity, figures, limit, unit=unit)


def in_float64(**given: Any) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Rasterise with torch operations in float64 under gsplat's signature; gradients reach the float32 arguments."""
    antialiased = given.pop("rasterize_mode") == "antialiased"
    # The reference never packs.
    del given["packed"]
    wide: dict[str, Any] = {
        name: value.double() if isinstance(value, Tensor) else value for name, value in given.items()
    }
    image, alpha, splats = torch_reference.render(**wide, antialiased=antialiased)
    return image, alpha, {**splats, "gaussian_ids": None}


def _cases() -> dict[str, dict[str, Any]]:
    """Yield names and options of the cases: both modes, packed or not, plain colours and harmonics of degree 0 to 3."""
    cases: dict[str, dict[str, Any]] = {}
    for mode in ("classic", "antialiased"):
        for packed in (False, True):
            for degree in (None, 0, 1, 2, 3):
                colours = "plain colours" if degree is None else f"degree {degree}"
                name = f"{mode}, {colours}{', packed' if packed else ''}"
                cases[name] = {"rasterize_mode": mode, "packed": packed, "sh_degree": degree}
        cases[f"{mode}, ortho"] = {
            "rasterize_mode": mode,
            "packed": False,
            "sh_degree": None,
            "camera_model": "ortho",
        }
    return cases


def _draw(rasterize: Rasterize, scene: BallScene, options: dict[str, Any], device: torch.device) -> Drawn:
    """Render one case on one device, with the gradients of a fixed random weighted sum of the outputs."""
    generator = torch.Generator().manual_seed(1)
    num_gaussians, num_cameras = len(scene.means), len(scene.viewmats)
    harmonics = _HARMONICS_SPREAD * torch.randn(num_gaussians, 16, 3, generator=generator)
    backgrounds = torch.rand(num_cameras, 3, generator=generator)
    intrinsics = scene.Ks.clone()
    if options.get("camera_model") == "ortho":
        # Pixels per scene unit in place of focal lengths; the image then shows a part of the ball.
        intrinsics[:, [0, 1], [0, 1]] /= 2.5
    leaves = scene.leaves() | {"viewmats": scene.viewmats, "backgrounds": backgrounds}
    if options["sh_degree"] is not None:
        leaves["colors"] = harmonics
    leaves = {name: value.detach().to(device).requires_grad_() for name, value in leaves.items()}
    colours, alpha, meta = rasterize(
        **leaves, Ks=intrinsics.to(device), width=scene.width, height=scene.height, render_mode="RGB+ED", **options
    )
    meta["means2d"].retain_grad()
    weights = torch.randn(num_cameras, scene.height, scene.width, 5, generator=generator).to(device)
    (torch.cat([colours, alpha], dim=-1) * weights).sum().backward()
    gradient = meta["means2d"].grad
    gradients = {name: value.grad for name, value in leaves.items()}
    gradients["means2d"] = None if gradient is None else _spread(gradient, meta, num_cameras, num_gaussians)
    return Drawn(
        image=_on_host(colours[..., :3]),
        alpha=_on_host(alpha),
        depth=_on_host(colours[..., 3:]),
        radii=_on_host(_spread(meta["radii"], meta, num_cameras, num_gaussians)),
        gradients={name: _on_host(value) for name, value in gradients.items() if value is not None},
    )


def _spread(
    values: Tensor,  # [C, N, 2], or [P, 2] of the packed pairs
    meta: dict[str, Any],
    num_cameras: int,
    num_gaussians: int,
) -> Tensor:  # [C, N, 2]
    """Unpack values to [C, N, ...]; 0 for pairs that were culled."""
    if meta["gaussian_ids"] is None:
        return values
    whole = values.new_zeros(num_cameras, num_gaussians, 2)
    whole[meta["camera_ids"], meta["gaussian_ids"]] = values
    return whole


def _on_host(value: Tensor) -> Tensor:
    return value.detach().cpu().double()


def _errors(ours: Drawn, theirs: Drawn) -> dict[str, float]:
    """Return the differences between two sides, by quantity."""
    errors = {}
    for name in ("image", "alpha", "depth"):
        scale = _DEPTH_SCALE if name == "depth" else 1.0
        apart = (getattr(ours, name) - getattr(theirs, name)).abs().amax(dim=-1) / scale
        errors[f"{name}: pixels off"] = _share(~(apart <= PIXEL_LIMIT))
        if name != "depth":
            # A single faint Gaussian seen by one side only would count as its whole depth.
            errors[f"{name}: worst pixel"] = float(apart.max())
    seen, expected = (ours.radii > 0).all(dim=-1), (theirs.radii > 0).all(dim=-1)
    both = seen & expected
    apart = (ours.radii - theirs.radii).abs()[both]
    errors["visible Gaussians that differ"] = _share(seen != expected)
    errors["radii that differ"] = _share(apart > 0)
    errors["radii: largest difference"] = float(apart.max()) if len(apart) else 0.0
    for name, exact in theirs.gradients.items():
        given = ours.gradients.get(name)
        # If one side has no gradient, the error is the largest possible.
        errors[f"gradient of {name}"] = (
            float("inf") if given is None else float((given - exact).norm() / exact.norm().clamp_min(1e-12))
        )
    return errors


def _share(mask: Tensor) -> float:
    return float(mask.double().mean()) if mask.numel() else 0.0


def _limit(quantity: str) -> tuple[float, str]:
    """Return limit and unit of a quantity."""
    if quantity.startswith("gradient"):
        return GRADIENT_LIMIT, "relative L2"
    if quantity.endswith("worst pixel"):
        return FLIP_LIMIT, ""
    if quantity.endswith("largest difference"):
        return RADIUS_LIMIT, "px"
    return FLIP_SHARE, "share"
