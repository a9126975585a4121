"""The hash encoding by Triton's kernels instead of torch operations: same table, same features, same slopes.

torch for Linux brings Triton, so that a card needs nothing else installed. Torch operations read and write kilobytes
for a point on each level; these kernels read the eight corners and write two numbers. Slopes are computed along given
directions, without the jacobian. Never run on a card by this project; tests run them in Triton's interpreter.

Letters: P points, L levels, E entries of the table.
"""

from __future__ import annotations

import functools
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sdi_gs.representations.ngp.hash_grid import FEATURES, GridLayout
from sdi_gs.representations.ngp.tiny_cuda_nn import Encoded


def encode(
    points: Tensor,  # [P, 3] in [0, 1], without gradient
    table: Tensor,  # [E, 2] float32
    layout: GridLayout,
    *,
    num_levels: int,
    with_slopes: bool = False,
) -> Encoded:
    """Compute features of the first ``num_levels`` levels, 0 for the others; differentiable once by the table."""
    points, table = points.detach().contiguous(), table.contiguous()

    def slopes_along(
        directions: Tensor,  # [P, 2 L]
    ) -> Tensor:  # [P, 3]
        return _Slopes.apply(points, table, directions.contiguous(), layout, num_levels)  # pyright: ignore[reportReturnType]

    features: Any = _Features.apply(points, table, layout, num_levels)
    return Encoded(features=features, slopes_along=slopes_along if with_slopes else None)


class _Features(torch.autograd.Function):
    """Compute features [P, 2 L] from points and table."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, points: Tensor, table: Tensor, layout: GridLayout, num_levels: int
    ) -> Tensor:
        kernels = _kernels()
        count, width = len(points), FEATURES * layout.num_levels
        features = _for_levels((count, width), num_levels, layout, points)
        arrays = _layout_on(layout, num_levels, points.device)
        if count:
            kernels.features_forward[_programs(count, num_levels)](
                points, table, *arrays, features, count, WIDTH=width, POINTS=kernels.POINTS
            )
        ctx.save_for_backward(points)
        ctx.layout, ctx.num_levels = layout, num_levels
        return features

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        kernels = _kernels()
        (points,) = ctx.saved_tensors
        layout: GridLayout = ctx.layout
        count, width = len(points), FEATURES * layout.num_levels
        grad_table = points.new_zeros((layout.num_entries, FEATURES))
        arrays = _layout_on(layout, ctx.num_levels, points.device)
        if count:
            kernels.features_backward[_programs(count, ctx.num_levels)](
                points, *arrays, gradients[0].contiguous(), grad_table, count, WIDTH=width, POINTS=kernels.POINTS
            )
        return None, grad_table, None, None


class _Slopes(torch.autograd.Function):
    """Compute derivatives [P, 3] of the features' sum along directions [P, 2 L], by the coordinates."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, points: Tensor, table: Tensor, directions: Tensor, layout: GridLayout, num_levels: int
    ) -> Tensor:
        kernels = _kernels()
        count, width = len(points), FEATURES * layout.num_levels
        slopes = torch.empty_like(points)
        arrays = _layout_on(layout, num_levels, points.device)
        if count:
            kernels.slopes_forward[_programs(count, 1)[:1]](
                points, table, *arrays, directions, slopes, count, num_levels, WIDTH=width, POINTS=kernels.POINTS
            )
        ctx.save_for_backward(points, table, directions)
        ctx.layout, ctx.num_levels = layout, num_levels
        return slopes

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        kernels = _kernels()
        points, table, directions = ctx.saved_tensors
        layout: GridLayout = ctx.layout
        count, width = len(points), FEATURES * layout.num_levels
        grad_table = torch.zeros_like(table)
        grad_directions = _for_levels((count, width), ctx.num_levels, layout, points)
        arrays = _layout_on(layout, ctx.num_levels, points.device)
        if count:
            kernels.slopes_backward[_programs(count, ctx.num_levels)](
                *(points, table, *arrays, directions, gradients[0].contiguous(), grad_directions, grad_table, count),
                WIDTH=width,
                POINTS=kernels.POINTS,
            )
        return None, grad_table, grad_directions, None, None


def _kernels() -> Any:
    """Import the kernels, and Triton with them."""
    return import_module("sdi_gs.representations.ngp.kernels.triton_encoding")


def _for_levels(shape: tuple[int, int], num_levels: int, layout: GridLayout, like: Tensor) -> Tensor:
    """Return room for two numbers of each level; those of unused levels, which no kernel writes, are 0."""
    return like.new_empty(shape) if num_levels == layout.num_levels else like.new_zeros(shape)


def _programs(count: int, levels: int) -> tuple[int, int]:
    """Return the number of programs along points and levels."""
    return -(-count // _kernels().POINTS), levels


@functools.lru_cache(maxsize=32)
def _layout_on(
    layout: GridLayout, num_levels: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # [L], [L], [L + 1], [L]
    """Return the first levels' scales, resolutions, offsets and hash flags on a device."""
    return (
        torch.tensor(layout.scales[:num_levels], dtype=torch.float32, device=device),
        torch.tensor(layout.resolutions[:num_levels], dtype=torch.int64, device=device),
        torch.tensor(layout.offsets[: num_levels + 1], dtype=torch.int64, device=device),
        torch.tensor(layout.hashed[:num_levels], dtype=torch.int32, device=device),
    )
