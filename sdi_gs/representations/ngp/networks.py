"""Evaluation of the field at points: hash-grid features through the density and albedo networks, and slopes.

    raw = relu(f D) d        logits = relu(f A) a        slopes = d raw / d position

``query`` chooses numba kernels for float32 on the CPU; for float32 on CUDA tiny-cuda-nn's grid, if it is installed, or
Triton's kernels; and torch operations otherwise. All are differentiable by the table and the weights, slopes included.

Letters: P points, L levels, E entries of the table, K hidden units.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, assert_never

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from sdi_gs.representations.ngp import tiny_cuda_nn
from sdi_gs.representations.ngp.backends import backend_for, is_installed
from sdi_gs.representations.ngp.hash_grid import FEATURES, GridLayout, encode, layout_arrays
from sdi_gs.representations.ngp.linear_encoding import encode_linear
from sdi_gs.representations.ngp.triton_query import TritonQuery

QueryBackend = Literal["numba", "tiny-cuda-nn", "triton", "torch"]

# The least work per thread: about 0.2 ms of each kernel.
_SMALLEST_POINTS = 1024


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The trainable tensors of a field."""

    table: Tensor  # [E, 2]
    density_hidden: Tensor  # [2 L, K]
    density_out: Tensor  # [K]
    albedo_hidden: Tensor  # [2 L, K]
    albedo_out: Tensor  # [K, 3]

    def tensors(self) -> tuple[Tensor, ...]:
        """Return all tensors in the order of the fields."""
        return self.table, self.density_hidden, self.density_out, self.albedo_hidden, self.albedo_out


@dataclass(frozen=True, kw_only=True)
class QueryResult:
    """The networks' values at P points; optional ones are None unless requested."""

    raw: Tensor  # [P] density before its bump and softplus
    logits: Tensor | None  # [P, 3] albedo before its sigmoid
    slopes: Tensor | None  # [P, 3] derivative of raw by the position in the grid


def query_backend(points: Tensor, weights: Weights, layout: GridLayout) -> QueryBackend:
    """Choose by device and type; torch if the points need a gradient, which only it computes."""
    if points.requires_grad:
        return "torch"
    suited = points.device.type == "cuda" and points.dtype == weights.table.dtype == torch.float32 and len(points) > 0
    if suited and is_installed("tinycudann") and tiny_cuda_nn.same_grid(layout):
        return "tiny-cuda-nn"
    return backend_for(points, weights.table)


def query(
    points: Tensor,  # [P, 3] in [0, 1]
    weights: Weights,
    layout: GridLayout,
    *,
    num_levels: int,
    with_colour: bool,
    with_slopes: bool,
    backend: QueryBackend | None = None,
) -> QueryResult:
    """Evaluate both networks over the first ``num_levels`` levels."""
    match backend or query_backend(points, weights, layout):
        case "numba":
            raw, logits, slopes = _Query.apply(points, layout, num_levels, with_colour, with_slopes, *weights.tensors())
            return QueryResult(
                raw=raw, logits=logits.T if with_colour else None, slopes=slopes.T if with_slopes else None
            )
        case "triton":
            given = (points, layout, num_levels, with_colour, with_slopes, *weights.tensors())
            raw, logits, slopes = TritonQuery.apply(*given)
            return QueryResult(raw=raw, logits=logits if with_colour else None, slopes=slopes if with_slopes else None)
        case "tiny-cuda-nn":
            encoded = tiny_cuda_nn.encode(points, weights.table, layout, num_levels=num_levels, with_slopes=with_slopes)
            return _networks(encoded.features, encoded.slopes_along, weights, with_colour=with_colour)
        case "torch":
            encoded_by = encode if points.requires_grad else encode_linear
            features, jacobian = encoded_by(
                points, weights.table, layout, num_levels=num_levels, with_jacobian=with_slopes
            )
            along = None if jacobian is None else lambda towards: (jacobian @ towards[:, :, None])[:, :, 0]
            return _networks(features, along, weights, with_colour=with_colour)
        case other:
            assert_never(other)


def _networks(
    features: Tensor,  # [P, 2 L]
    slopes_along: Callable[[Tensor], Tensor] | None,  # directions [P, 2 L] among features -> [P, 3] by position
    weights: Weights,
    *,
    with_colour: bool,
) -> QueryResult:
    """Evaluate both networks in torch operations on given features."""
    hidden = features @ weights.density_hidden
    slopes = None
    if slopes_along is not None:
        gates = (hidden.detach() > 0.0).to(hidden.dtype) * weights.density_out
        slopes = slopes_along(gates @ weights.density_hidden.T)
    return QueryResult(
        raw=F.relu(hidden) @ weights.density_out,
        logits=F.relu(features @ weights.albedo_hidden) @ weights.albedo_out if with_colour else None,
        slopes=slopes,
    )


class _Query(torch.autograd.Function):
    """Compute raw [P], logits [3, P] and slopes [3, P] (of 0 points if not needed) from points, table and weights."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        points: Tensor,  # [P, 3]
        layout: GridLayout,
        num_levels: int,
        with_colour: bool,
        with_slopes: bool,
        table: Tensor,  # [E, 2]
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        from sdi_gs.rasterize.kernels.simd import LANES
        from sdi_gs.rasterize.threads import run_on_ranges
        from sdi_gs.representations.ngp.kernels import encoding, networks

        count, blocks, width = len(points), -(-len(points) // LANES), FEATURES * layout.num_levels
        points = points.detach().contiguous()
        features = torch.empty((blocks, width, LANES))
        jacobian = torch.empty((blocks if with_slopes else 0, 3, width, LANES))
        _clear_unused(features, jacobian, num_levels, count)
        raw = torch.empty(count)
        logits, slopes = torch.empty((3, count if with_colour else 0)), torch.empty((3, count if with_slopes else 0))
        run_on_ranges(
            encoding.encode,
            count,
            _SMALLEST_POINTS,
            *_numpy(points, table),
            *layout_arrays(layout, num_levels),
            *_numpy(features, jacobian),
        )
        run_on_ranges(
            networks.networks,
            count,
            _SMALLEST_POINTS,
            *_numpy(features, jacobian, *weights, raw, logits, slopes),
        )
        ctx.save_for_backward(points, features, jacobian, *weights)
        ctx.layout, ctx.num_levels = layout, num_levels
        return raw, logits, slopes

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        from sdi_gs.rasterize.threads import run_interleaved
        from sdi_gs.representations.ngp.kernels import encoding, networks

        points, features, jacobian, *weights = ctx.saved_tensors
        grad_raw, grad_logits, grad_slopes = gradients
        layout: GridLayout = ctx.layout
        width, hidden = weights[0].shape
        num_chunks = -(-len(points) // networks.CHUNK)
        grad_features, slope_features = torch.empty_like(features), torch.empty((len(jacobian), *features.shape[1:]))
        sums = np.empty((num_chunks, networks.gradient_length(width, hidden)), np.float32)
        # Points by rows, the order in which the kernels read them.
        by_point = grad_slopes.T.contiguous()
        run_interleaved(
            networks.networks_backward,
            num_chunks,
            len(points),
            _SMALLEST_POINTS,
            *_numpy(features, jacobian, *weights, grad_raw, grad_logits, by_point, grad_features, slope_features),
            sums,
        )
        grad_table = torch.zeros((layout.num_entries, FEATURES))
        # One thread per level: entries are summed in the order of the points, whatever the number of threads.
        run_interleaved(
            encoding.encode_backward,
            ctx.num_levels,
            ctx.num_levels * len(points),
            _SMALLEST_POINTS,
            *_numpy(points),
            *layout_arrays(layout, ctx.num_levels),
            *_numpy(grad_features, slope_features, by_point, grad_table),
        )
        total = torch.from_numpy(sums.sum(axis=0))
        grad_weights = [
            part.view_as(w) for part, w in zip(total.split([w.numel() for w in weights]), weights, strict=True)
        ]
        return None, None, None, None, None, grad_table, *grad_weights


def _numpy(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.detach().contiguous().numpy() for tensor in tensors]


def _clear_unused(features: Tensor, jacobian: Tensor, num_levels: int, count: int) -> None:
    """Zero what the encoding does not write: unused levels, and lanes beyond the last point."""
    features[:, FEATURES * num_levels :] = 0.0
    jacobian[:, :, FEATURES * num_levels :] = 0.0
    if len(features):
        beyond = count - (len(features) - 1) * features.shape[-1]
        features[-1, :, beyond:] = 0.0
        jacobian[-1:, :, :, beyond:] = 0.0
