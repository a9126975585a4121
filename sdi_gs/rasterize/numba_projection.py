"""The projection by the numba kernels, and as an autograd function.

Letters: C cameras, N Gaussians, B blocks of LANES Gaussians.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sdi_gs.rasterize.kernels import projection, projection_backward
from sdi_gs.rasterize.kernels.simd import LANES
from sdi_gs.rasterize.request import RenderRequest
from sdi_gs.rasterize.threads import run_on_ranges

SMALLEST_ITEMS = 4096
"""Gaussians that are worth waking a thread for: about 0.1 ms of a kernel."""


def as_arrays(*tensors: Tensor) -> list[np.ndarray]:
    """Return contiguous arrays of the tensors' values, without a copy where they are contiguous."""
    arrays = []
    for tensor in tensors:
        # Forced, a tensor that requires gradients is given as it is, in one call.
        arrays += [(tensor if tensor.is_contiguous() else tensor.contiguous()).numpy(force=True)]
    return arrays


def differentiable_once(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Return torch's ``once_differentiable``, left out where gradients are not recorded: it changes that twice a call.

    The kernels record nothing anyway.
    """
    recorded = once_differentiable(backward)

    @functools.wraps(backward)
    def chosen(ctx: Any, *gradients: Tensor) -> Any:
        return (recorded if torch.is_grad_enabled() else backward)(ctx, *gradients)

    return chosen


@dataclass(frozen=True, kw_only=True, slots=True)
class Items:
    """Gaussians on the image planes, as the kernels read them. C and N are 1 and M for packed ones."""

    means2d: np.ndarray  # [C, N, 2]
    depths: np.ndarray  # [C, N]
    conics: np.ndarray  # [C, N, 3]
    radii: np.ndarray  # [C, N, 2] int32
    tiles_per_gauss: np.ndarray  # [C, N] int32
    image_starts: np.ndarray  # [images + 1] first item of each image


@dataclass(frozen=True, kw_only=True, slots=True)
class Projection:
    """Gaussians in space and on the image planes of all cameras, and what the kernels need to go from one to the other.

    ``shapes`` are the means [N, 3], quats [N, 4], scales [N, 3], covars [N, 6] and the flag whether the covars are read
    instead of the two; ``cameras`` are the viewmats [C, 4, 4], intrinsics [C, 3, 3] and (width, height).
    """

    request: RenderRequest
    shapes: tuple[Any, ...]
    cameras: tuple[Any, ...]
    items: Items
    compensations: np.ndarray  # [C, N], or empty unless antialiased


def project(
    request: RenderRequest,
    arrays: dict[str, np.ndarray],
    covars: Tensor | None,  # [N, 6] xx xy xz yy yz zz
) -> Projection:
    """Project all Gaussians into all cameras; the arrays are those of ``check_request``."""
    means, viewmats = arrays["means"], arrays["viewmats"]
    num_cameras, num_gaussians = viewmats.shape[0], means.shape[0]
    # What is not given is not read; the means stand in for it.
    quats, scales = (arrays["quats"], arrays["scales"]) if covars is None else (means, means)
    given = means if covars is None else as_arrays(covars)[0]
    shapes = (means, quats, scales, given, _flag(covars is not None))
    cameras = (viewmats, arrays["Ks"], (request.width, request.height))
    shape = (num_cameras, num_gaussians)
    items = Items(
        means2d=np.empty((*shape, 2), np.float32),
        depths=np.empty(shape, np.float32),
        conics=np.empty((*shape, 3), np.float32),
        radii=np.empty((*shape, 2), np.int32),
        tiles_per_gauss=np.empty(shape, np.int32),
        image_starts=np.arange(num_cameras + 1) * num_gaussians,
    )
    compensations = np.empty(shape if request.antialiased else (0, 0), np.float32)
    limits = (request.eps2d, request.near_plane, request.far_plane, request.radius_clip)
    run_on_ranges(
        projection.project,
        num_gaussians,
        SMALLEST_ITEMS // num_cameras,
        *shapes,
        arrays["opacities"],
        *cameras,
        tuple(map(np.float32, limits)),
        request.antialiased,
        _flag(request.ortho),
        items.radii,
        items.means2d,
        items.depths,
        items.conics,
        compensations,
        items.tiles_per_gauss,
    )
    return Projection(request=request, shapes=shapes, cameras=cameras, items=items, compensations=compensations)


class Project(torch.autograd.Function):
    """Gaussians and viewmats -> means2d, depths, conics and, if antialiased, compensations: those of ``project``."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        means: Tensor,  # [N, 3]
        quats: Tensor | None,  # [N, 4]
        scales: Tensor | None,  # [N, 3]
        covars: Tensor | None,  # [N, 6] instead of the two
        viewmats: Tensor,  # [C, 4, 4]
        intrinsics: Tensor,  # [C, 3, 3]
        radii: Tensor,  # [C, N, 2]
        projected: Projection,
    ) -> tuple[Tensor, ...]:
        # Saved although their arrays are kept: torch refuses a backward pass after one was changed in place.
        ctx.save_for_backward(means, quats, scales, covars, viewmats, intrinsics, radii)
        ctx.projected = projected
        items = projected.items
        image_plane = (items.means2d, items.depths, items.conics)
        if projected.request.antialiased:
            image_plane += (projected.compensations,)
        return tuple(map(torch.from_numpy, image_plane))

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        means, _, _, covars, viewmats, _, _ = ctx.saved_tensors
        projected: Projection = ctx.projected
        request, num_gaussians, num_cameras = projected.request, means.shape[0], viewmats.shape[0]
        for_views, widths = ctx.needs_input_grad[4], (3, 4, 3, 0) if covars is None else (3, 0, 0, 6)
        image_plane = as_arrays(*gradients)
        if not request.antialiased:
            image_plane += [projected.compensations]
        written = [np.empty((num_gaussians, width), np.float32) for width in widths]
        num_blocks = -(-num_gaussians // LANES) if for_views else 0
        grad_views = np.zeros((num_blocks, num_cameras, projection_backward.VIEW_LENGTH), np.float32)
        run_on_ranges(
            projection_backward.project_backward,
            num_gaussians,
            SMALLEST_ITEMS // num_cameras,
            *projected.shapes,
            *projected.cameras,
            np.float32(request.eps2d),
            request.antialiased,
            _flag(request.ortho),
            projected.items.radii,
            *image_plane,
            *written,
            _flag(for_views),
            grad_views,
        )
        grad_viewmats = _sum_views(grad_views) if for_views else None
        grad_means, grad_quats, grad_scales, grad_covars = map(torch.from_numpy, written)
        if covars is not None:
            return grad_means, None, None, grad_covars, grad_viewmats, None, None, None
        return grad_means, grad_quats, grad_scales, None, grad_viewmats, None, None, None


def _flag(value: bool) -> tuple[int, ...]:
    """Return a tuple whose length, hence type, encodes the flag: kernels are compiled separately for each value."""
    return (0,) if value else ()


def _sum_views(blocks: np.ndarray) -> Tensor:  # [C, 4, 4]
    """Sum the blocks' gradients [B, C, VIEW_LENGTH] of the view matrices, in fixed order and double precision."""
    sums = torch.from_numpy(blocks.sum(axis=0, dtype=np.float64).astype(np.float32))
    gradient = torch.zeros(len(sums), 4, 4)
    gradient[:, :3, :3] = sums[:, :9].reshape(-1, 3, 3)
    gradient[:, :3, 3] = sums[:, 9:12]
    return gradient
