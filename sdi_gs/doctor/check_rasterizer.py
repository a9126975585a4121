"""Whether a device's rasteriser draws what the reference draws, and gives the same gradients.

On CUDA gsplat stands beside the numba kernels; on a CPU these stand beside torch operations in float64.

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
"""Of a channel in [0, 1], and of a depth over the scene's: both sides round float32 in their own order
(docs/reports/rasterizer.md has 2e-6 against float64), and CUDA's exponential is a fast one."""
FLIP_SHARE = 1e-3
"""Share of pixels, radii and visible Gaussians that may differ by more: those whose alpha lies within rounding of
1/255, whose radius lies within rounding of a whole pixel, or whose box touches the border, fall to one side here and to
the other there."""
FLIP_LIMIT = 0.01
"""What such a Gaussian may do to a pixel: it is drawn with an alpha of 1/255 or not at all, and colours are below 2."""
GRADIENT_LIMIT = 1e-3
"""Relative L2 error of a gradient; CUDA adds up in no fixed order, and a flip costs a pixel's worth."""
RADIUS_LIMIT = 1.0
"""Pixels: a radius is rounded up, so that a flip is one."""

_DEPTH_SCALE = 4.0
"""Depths of the scenes lie between 0 and this, scene units."""
_HARMONICS_SPREAD = 0.2
"""Keeps colours below 2, and takes some of them below 0, where they are cut."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What one side made of a case, on the host in float64."""

    image: Tensor  # [C, H, W, 3]
    alpha: Tensor  # [C, H, W, 1]
    depth: Tensor  # [C, H, W, 1] scene units, expected where something is drawn
    radii: Tensor  # [C, N, 2] pixels
    gradients: dict[str, Tensor]


def check_rasterizer(
    setup: CheckSetup, *, tested: Rasterize = rasterization, oracle: Rasterize | None = None
) -> Iterator[Row]:
    """A row per quantity, with the worst of all cases; ``tested`` and ``oracle`` stand in for the two sides."""
    if oracle is None:
        oracle = rasterization if setup.device.type == "cuda" else in_float64
    # Opaque enough that no expected depth divides by a vanishing alpha, and clear enough to see what lies behind.
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
        except Exception as error:  # What one case stops at says nothing of the others.
            yield failed(case, in_one_line(error))
            continue
        theirs = _draw(oracle, scene, options, setup.reference)
        for quantity, error in _errors(ours, theirs).items():
            errors.setdefault(quantity, {})[case] = error
    for quantity, figures in errors.items():
        limit, unit = _limit(quantity)
        yield worst(quantity, figures, limit, unit=unit)


def in_float64(**given: Any) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """The reference of torch operations behind gsplat's call; gradients reach the float32 tensors that were given."""
    antialiased = given.pop("rasterize_mode") == "antialiased"
    # Its splats are never packed.
    del given["packed"]
    wide: dict[str, Any] = {
        name: value.double() if isinstance(value, Tensor) else value for name, value in given.items()
    }
    image, alpha, splats = torch_reference.render(**wide, antialiased=antialiased)
    return image, alpha, {**splats, "gaussian_ids": None}


def _cases() -> dict[str, dict[str, Any]]:
    """Names and options of what is drawn: both modes, packed or not, plain colours and harmonics of degree 0 to 3."""
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
    """One case on one device, with the gradients of a fixed random sum of what is seen."""
    generator = torch.Generator().manual_seed(1)
    num_gaussians, num_cameras = len(scene.means), len(scene.viewmats)
    harmonics = _HARMONICS_SPREAD * torch.randn(num_gaussians, 16, 3, generator=generator)
    backgrounds = torch.rand(num_cameras, 3, generator=generator)
    intrinsics = scene.Ks.clone()
    if options.get("camera_model") == "ortho":
        # Pixels per scene unit in place of focal lengths: the image then shows a part of the ball.
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
    """Packed values at their cameras and Gaussians, 0 where there are none."""
    if meta["gaussian_ids"] is None:
        return values
    whole = values.new_zeros(num_cameras, num_gaussians, 2)
    whole[meta["camera_ids"], meta["gaussian_ids"]] = values
    return whole


def _on_host(value: Tensor) -> Tensor:
    return value.detach().cpu().double()


def _errors(ours: Drawn, theirs: Drawn) -> dict[str, float]:
    """How far two sides are from each other, by quantity."""
    errors = {}
    for name in ("image", "alpha", "depth"):
        scale = _DEPTH_SCALE if name == "depth" else 1.0
        apart = (getattr(ours, name) - getattr(theirs, name)).abs().amax(dim=-1) / scale
        errors[f"{name}: pixels off"] = _share(~(apart <= PIXEL_LIMIT))
        if name != "depth":
            # A pixel that shows one faint Gaussian here and none there has a depth here and none there.
            errors[f"{name}: worst pixel"] = float(apart.max())
    seen, expected = (ours.radii > 0).all(dim=-1), (theirs.radii > 0).all(dim=-1)
    both = seen & expected
    apart = (ours.radii - theirs.radii).abs()[both]
    errors["visible Gaussians that differ"] = _share(seen != expected)
    errors["radii that differ"] = _share(apart > 0)
    errors["radii: largest difference"] = float(apart.max()) if len(apart) else 0.0
    for name, exact in theirs.gradients.items():
        given = ours.gradients.get(name)
        # The largest error there is, where one side gives no gradient at all.
        errors[f"gradient of {name}"] = (
            float("inf") if given is None else float((given - exact).norm() / exact.norm().clamp_min(1e-12))
        )
    return errors


def _share(mask: Tensor) -> float:
    return float(mask.double().mean()) if mask.numel() else 0.0


def _limit(quantity: str) -> tuple[float, str]:
    """Limit and unit of a quantity."""
    if quantity.startswith("gradient"):
        return GRADIENT_LIMIT, "relative L2"
    if quantity.endswith("worst pixel"):
        return FLIP_LIMIT, ""
    if quantity.endswith("largest difference"):
        return RADIUS_LIMIT, "px"
    return FLIP_SHARE, "share"
