"""The hash encoding as a linear map of its table, which keeps only the points for the backward pass.

Autograd would keep eight rows, factors and slopes of every level: kilobytes per point. Here rows and factors are
computed again in the backward pass, for some points at a time.

Letters: P points, L levels, E entries of all levels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sdi_gs.representations.ngp.hash_grid import FEATURES, GridLayout, corners
from sdi_gs.row_groups import row_groups

_POINTS_AT_ONCE = 2**20
"""Points at a time, a bound on memory: about 600 bytes per point while slopes are computed."""


def encode_linear(
    points: Tensor,  # [P, 3] in [0, 1], without gradient
    table: Tensor,  # [E, 2]
    layout: GridLayout,
    *,
    num_levels: int,
    with_jacobian: bool = False,
) -> tuple[Tensor, Tensor | None]:  # [P, 2 L], [P, 3, 2 L]
    """Compute what ``hash_grid.encode`` returns, differentiable once by the table."""
    features, jacobian = _Encode.apply(points, table, layout, num_levels, with_jacobian)
    return features, jacobian if with_jacobian else None


class _Encode(torch.autograd.Function):
    """Compute features [P, 2 L] and jacobian [P, 3, 2 L] (of 0 points if not needed) from points and table."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        points: Tensor,  # [P, 3]
        table: Tensor,  # [E, 2]
        layout: GridLayout,
        num_levels: int,
        with_jacobian: bool,
    ) -> tuple[Tensor, Tensor]:
        count, width = len(points), FEATURES * layout.num_levels
        features = table.new_zeros((count, width))
        jacobian = table.new_zeros((count if with_jacobian else 0, 3, width))
        for part in row_groups(count, _POINTS_AT_ONCE):
            for level in range(num_levels):
                entries, factors = corners(points[part], layout, level, with_slopes=with_jacobian)
                value, *slopes = (factors[..., None] * table[entries]).sum(dim=1)
                columns = slice(FEATURES * level, FEATURES * (level + 1))
                features[part, columns] = value
                for axis, slope in enumerate(slopes):
                    jacobian[part, axis, columns] = slope
        ctx.save_for_backward(points)
        ctx.layout, ctx.num_levels, ctx.with_jacobian = layout, num_levels, with_jacobian
        return features, jacobian

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        grad_features: Tensor,  # [P, 2 L]
        grad_jacobian: Tensor,  # [P, 3, 2 L]
    ) -> tuple[Tensor | None, ...]:
        (points,) = ctx.saved_tensors
        layout: GridLayout = ctx.layout
        grad_table = grad_features.new_zeros((layout.num_entries, FEATURES))
        for part in row_groups(len(points), _POINTS_AT_ONCE):
            for level in range(ctx.num_levels):
                entries, factors = corners(points[part], layout, level, with_slopes=ctx.with_jacobian)
                columns = slice(FEATURES * level, FEATURES * (level + 1))
                above = grad_features[part, columns][None]
                if ctx.with_jacobian:
                    above = torch.cat([above, grad_jacobian[part, :, columns].transpose(0, 1)])
                given = (factors[..., None] * above[:, None]).sum(dim=0)
                grad_table.index_add_(0, entries.flatten(), given.flatten(0, 1))
        return None, grad_table, None, None, None
