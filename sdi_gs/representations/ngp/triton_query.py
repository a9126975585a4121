"""The field at points by Triton's kernels: hash encoding, both networks and slopes, forward and backward.

Torch operations read and write kilobytes for a point on each level and for each hidden layer; these kernels read the
eight corners, and keep a point's features alone. Features lie level by level, as the encoding writes them. Hidden units
are computed again in the backward pass, and slopes are taken along the directions in which the density changes, without
the jacobian.

Letters: P points, L levels in use, E entries of the table, K hidden units.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sdi_gs.representations.ngp.hash_grid import FEATURES, GridLayout
from sdi_gs.representations.ngp.triton_launch import launch, num_programs, triton_kernels

MOST_PROGRAMS = 1024
"""Programs among which points are divided while gradients of weights are summed: a bound on their sums' memory. It does
not depend on the card, so that no sum does."""


class TritonQuery(torch.autograd.Function):
    """Compute raw [P], logits [P, 3] and slopes [P, 3] (of 0 points if not needed) from points, table and weights."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        points: Tensor,  # [P, 3] in [0, 1]
        layout: GridLayout,
        num_levels: int,
        with_colour: bool,
        with_slopes: bool,
        *tensors: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        points, table, *weights = (tensor.detach().contiguous() for tensor in (points, *tensors))
        count = len(points)
        features = points.new_empty((num_levels, count, FEATURES))
        towards = features.new_empty((num_levels, count if with_slopes else 0, FEATURES))
        raw, logits = points.new_empty(count), points.new_empty((count if with_colour else 0, 3))
        slopes = points.new_empty((count if with_slopes else 0, 3))
        encoding, arrays = triton_kernels("encoding"), _layout_on(layout, num_levels, points.device)
        by_level = (num_programs(count, encoding.POINTS), num_levels)
        size: dict[str, Any] = {"like": points, "POINTS": encoding.POINTS}
        launch(encoding.features_forward, by_level, points, table, *arrays, features, count, **size)
        networks, constants = triton_kernels("networks"), _constants(weights[0])
        launch(
            networks.forward,
            (num_programs(count, networks.POINTS),),
            *(features, *weights, raw, logits, towards, count, num_levels),
            like=points,
            COLOUR=with_colour,
            SLOPES=with_slopes,
            **constants,
        )
        if with_slopes:
            programs, along = by_level[:1], (towards, slopes, count, num_levels)
            launch(encoding.slopes_forward, programs, points, table, *arrays, *along, **size)
        ctx.save_for_backward(points, features, table, *weights)
        ctx.layout, ctx.with_colour, ctx.with_slopes = layout, with_colour, with_slopes
        return raw, logits, slopes

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        points, features, table, *weights = ctx.saved_tensors
        grad_raw, grad_logits, grad_slopes = (gradient.contiguous() for gradient in gradients)
        num_levels, count = features.shape[:2]
        encoding, arrays = triton_kernels("encoding"), _layout_on(ctx.layout, num_levels, points.device)
        by_level = (num_programs(count, encoding.POINTS), num_levels)
        size: dict[str, Any] = {"like": points, "POINTS": encoding.POINTS}
        grad_towards = features.new_empty(features.shape if ctx.with_slopes else 0)
        if ctx.with_slopes:
            given = (points, table, *arrays, grad_slopes, grad_towards, count)
            launch(encoding.directions_backward, by_level, *given, **size)
        grad_features, towards = torch.empty_like(features), torch.empty_like(grad_towards)
        by_density = _summed(
            "density_backward",
            *(features, weights[:2], (grad_raw, grad_towards, grad_features, towards)),
            SLOPES=ctx.with_slopes,
        )
        by_albedo: list[Tensor | None] = [None, None]
        if ctx.with_colour:
            by_albedo = [*_summed("albedo_backward", features, weights[2:], (grad_logits, grad_features))]
        grad_table = torch.zeros_like(table)
        given = (points, *arrays, grad_features, towards, grad_slopes, grad_table, count)
        launch(encoding.table_backward, by_level, *given, SLOPES=ctx.with_slopes, **size)
        return None, None, None, None, None, grad_table, *by_density, *by_albedo


def _summed(
    kernel: str,
    features: Tensor,  # [L, P, 2]
    layers: list[Tensor],
    others: tuple[Tensor, ...],
    **flags: bool,
) -> list[Tensor]:
    """Launch a backward pass through one network, and return the gradients of its layers."""
    networks = triton_kernels("networks")
    num_levels, count = features.shape[:2]
    all_blocks = num_programs(count, networks.POINTS)
    blocks = max(num_programs(all_blocks, MOST_PROGRAMS), 1)
    programs, sizes = num_programs(all_blocks, blocks), [layer.numel() for layer in layers]
    sums = features.new_empty((programs, sum(sizes)))
    launch(
        getattr(networks, kernel),
        (programs,),
        *(features, *layers, *others, sums, count, num_levels, blocks),
        like=features,
        **flags,
        **_constants(layers[0]),
    )
    return [part.view_as(layer) for part, layer in zip(sums.sum(dim=0).split(sizes), layers, strict=True)]


def _constants(
    hidden_layer: Tensor,  # [2 times all levels, K]
) -> dict[str, Any]:
    """Return the sizes that kernels of networks are compiled for; products need powers of two from 16 on."""
    networks, (width, hidden) = triton_kernels("networks"), hidden_layer.shape
    return {
        "WIDTH": width,
        "HIDDEN": hidden,
        "WIDE": _power_of_two(width),
        "UNITS": min(_power_of_two(hidden), networks.MOST_UNITS),
        "POINTS": networks.POINTS,
    }


def _power_of_two(number: int) -> int:
    """Return the smallest power of two, 16 at least, that is not below a number."""
    return max(1 << (number - 1).bit_length(), 16)


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
