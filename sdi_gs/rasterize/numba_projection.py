"""The projection as an autograd function around the numba kernels.

Letters: C cameras, N Gaussians, B blocks of LANES Gaussians.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sdi_gs.rasterize.kernels import projection, projection_backward
from sdi_gs.rasterize.kernels.simd import LANES
from sdi_gs.rasterize.threads import run_on_ranges

SMALLEST_ITEMS = 4096
"""Gaussians that are worth waking a thread for: about 0.1 ms of a kernel."""


def as_numpy(tensor: Tensor) -> np.ndarray:
    # Forced, a tensor that requires gradients is given as it is, in one call.
    return (tensor if tensor.is_contiguous() else tensor.contiguous()).numpy(force=True)


@dataclass(frozen=True, kw_only=True)
class View:
    """The projection's options: picture size, culling limits, blur and camera model."""

    width: int
    """Pixels."""
    height: int
    """Pixels."""
    near_plane: float
    """Depth below which Gaussians are culled, scene units."""
    far_plane: float
    """Depth above which Gaussians are culled, scene units."""
    radius_clip: float
    """Pixels; Gaussians whose radii are both at most this are culled."""
    eps2d: float
    """Square pixels added to both image variances."""
    antialiased: bool
    """Whether opacity is lowered to compensate for the blur that eps2d adds."""
    ortho: bool
    """Whether the cameras project along parallel rays."""

    @property
    def grid(self) -> tuple[int, int]:
        """Tiles along x and y."""
        return -(-self.width // projection.TILE_SIZE), -(-self.height // projection.TILE_SIZE)


class Project(torch.autograd.Function):
    """Gaussians and viewmats -> means2d, depths, conics, compensations (in the graph), radii and tiles_per_gauss."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        means: Tensor,  # [N, 3]
        quats: Tensor | None,  # [N, 4]
        scales: Tensor | None,  # [N, 3]
        covars: Tensor | None,  # [N, 6] instead of the two
        opacities: Tensor,  # [N]
        viewmats: Tensor,  # [C, 4, 4]
        intrinsics: Tensor,  # [C, 3, 3]
        view: View,
    ) -> tuple[Tensor, ...]:
        num_cameras, num_gaussians = len(viewmats), len(means)
        shape = (num_cameras, num_gaussians)
        radii = torch.empty((*shape, 2), dtype=torch.int32)
        tiles_per_gauss = torch.empty(shape, dtype=torch.int32)
        means2d, depths, conics = torch.empty((*shape, 2)), torch.empty(shape), torch.empty((*shape, 3))
        compensations = torch.empty(shape if view.antialiased else (0, 0))
        run_on_ranges(
            projection.project,
            num_gaussians,
            SMALLEST_ITEMS // num_cameras,
            as_numpy(means),
            *_shape_arguments(quats, scales, covars),
            *map(as_numpy, (opacities, viewmats, intrinsics)),
            (view.width, view.height),
            tuple(map(np.float32, (view.eps2d, view.near_plane, view.far_plane, view.radius_clip))),
            view.antialiased,
            _flag(view.ortho),
            *(t.numpy() for t in (radii, means2d, depths, conics, compensations, tiles_per_gauss)),
        )
        ctx.save_for_backward(means, quats, scales, covars, viewmats, intrinsics, radii)
        ctx.view = view
        ctx.mark_non_differentiable(radii, tiles_per_gauss)
        return means2d, depths, conics, compensations, radii, tiles_per_gauss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        means, quats, scales, covars, viewmats, intrinsics, radii = ctx.saved_tensors
        view: View = ctx.view
        from_covars, for_views = covars is not None, ctx.needs_input_grad[5]
        shapes = ((0, 4), (0, 3), covars.shape) if from_covars else (quats.shape, scales.shape, (0, 6))
        grad_means, grad_quats, grad_scales, grad_covars = map(torch.empty, (means.shape, *shapes))
        num_blocks = -(-len(means) // LANES) if for_views else 0
        grad_views = np.zeros((num_blocks, len(viewmats), projection_backward.VIEW_LENGTH), np.float32)
        run_on_ranges(
            projection_backward.project_backward,
            len(means),
            SMALLEST_ITEMS // len(viewmats),
            as_numpy(means),
            *_shape_arguments(quats, scales, covars),
            *map(as_numpy, (viewmats, intrinsics)),
            (view.width, view.height),
            np.float32(view.eps2d),
            view.antialiased,
            _flag(view.ortho),
            radii.numpy(),
            *map(as_numpy, gradients[:4]),
            *(t.numpy() for t in (grad_means, grad_quats, grad_scales, grad_covars)),
            _flag(for_views),
            grad_views,
        )
        grad_viewmats = _sum_views(grad_views) if for_views else None
        if from_covars:
            return grad_means, None, None, grad_covars, None, grad_viewmats, None, None
        return grad_means, grad_quats, grad_scales, None, None, grad_viewmats, None, None


def _flag(value: bool) -> tuple[int, ...]:
    """Return a tuple whose length, hence type, encodes the flag: kernels are compiled separately for each value."""
    return (0,) if value else ()


def _shape_arguments(
    quats: Tensor | None,  # [N, 4]
    scales: Tensor | None,  # [N, 3]
    covars: Tensor | None,  # [N, 6]
) -> tuple[Any, ...]:
    """Return the kernels' arguments for the Gaussians' shapes; tensors that are None become empty arrays."""
    given = ((quats, 4), (scales, 3), (covars, 6))
    arrays = [np.empty((0, width), np.float32) if tensor is None else as_numpy(tensor) for tensor, width in given]
    return *arrays, _flag(covars is not None)


def _sum_views(blocks: np.ndarray) -> Tensor:  # [C, 4, 4]
    """Sum the blocks' gradients [B, C, VIEW_LENGTH] of the view matrices, in fixed order and double precision."""
    sums = torch.from_numpy(blocks.sum(axis=0, dtype=np.float64).astype(np.float32))
    gradient = torch.zeros(len(sums), 4, 4)
    gradient[:, :3, :3] = sums[:, :9].reshape(-1, 3, 3)
    gradient[:, :3, 3] = sums[:, 9:12]
    return gradient
