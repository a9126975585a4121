"""Stand-in for tinycudann on the CPU: its documented behaviour, computed by the torch reference.

Source: its bindings (``bindings/torch/tinycudann/modules.py`` and ``bindings.cpp``). They take a flat float32 table,
pad batches to a multiple of 256, and read tensors through bare pointers, ignoring strides. Their backward can be
differentiated by the output's gradient, the table and the input, but not from the table's gradient.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sdi_gs.representations.ngp.hash_grid import encode, grid_layout
from sdi_gs.settings.ngp import HashGridConfig

GRANULARITY = 256

made: list[dict[str, Any]] = []
"""Arguments of every encoding created."""
seen: list[tuple[Tensor, Tensor]] = []
"""Input and table of every call."""


class Native:
    """Stand-in for the compiled part."""

    def __init__(self, config: dict[str, Any]) -> None:
        assert config["otype"] == "HashGrid" and config["interpolation"] == "Linear", config
        assert config["n_features_per_level"] == 2, config
        levels = config["n_levels"]
        self.num_levels = levels
        self.layout = grid_layout(
            HashGridConfig(
                num_levels=levels,
                initial_levels=levels,
                base_resolution=config["base_resolution"],
                growth=config["per_level_scale"],
                log2_table_size=config["log2_hashmap_size"],
            )
        )

    def features(self, points: Tensor, params: Tensor) -> Tensor:
        assert len(points) % GRANULARITY == 0 and len(points) > 0, "the batch is not padded"
        assert params.shape == (2 * self.layout.num_entries,), f"{params.shape} for {self.layout.num_entries} entries"
        return encode(points, params.view(-1, 2), self.layout, num_levels=self.num_levels)[0]


def _require_plain(*tensors: Tensor) -> None:
    for tensor in tensors:
        assert tensor.dtype == torch.float32, f"bindings.cpp checks for float32, got {tensor.dtype}"
        assert tensor.is_contiguous(), f"strides {tensor.stride()} would be read as if they were contiguous"


class _Forward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, native: Native, points: Tensor, params: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        _require_plain(points, params)
        ctx.native = native
        ctx.save_for_backward(points, params)
        return native.features(points, params)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        points, params = ctx.saved_tensors
        of_points, of_params = _Backward.apply(ctx.native, gradient, points, params)
        return None, of_points if points.requires_grad else None, of_params if params.requires_grad else None


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, native: Native, gradient: Tensor, points: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        _require_plain(gradient, points, params)
        ctx.native = native
        ctx.save_for_backward(gradient, points, params)
        with torch.enable_grad():
            points, params = points.detach().requires_grad_(), params.detach().requires_grad_()
            of_points, of_params = torch.autograd.grad(native.features(points, params), (points, params), gradient)
            return of_points, of_params

    @staticmethod
    def backward(ctx: Any, by_points: Tensor, by_params: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        gradient, points, params = ctx.saved_tensors
        _require_plain(by_points, gradient)
        with torch.enable_grad():
            leaves = [tensor.detach().requires_grad_() for tensor in (gradient, points, params)]
            features = ctx.native.features(*leaves[1:])
            (of_points,) = torch.autograd.grad(features, leaves[1], leaves[0], create_graph=True)
            return None, *torch.autograd.grad(of_points, leaves, by_points, allow_unused=True)


class Encoding(torch.nn.Module):
    def __init__(self, n_input_dims: int, encoding_config: dict[str, Any], seed: int = 1337, dtype: Any = None) -> None:
        super().__init__()
        assert n_input_dims == 3 and dtype == torch.float32
        made.append({"n_input_dims": n_input_dims, "encoding_config": encoding_config, "seed": seed, "dtype": dtype})
        self.native = Native(encoding_config)
        self.n_output_dims = 2 * self.native.num_levels
        generator = torch.Generator().manual_seed(seed)
        entries = 2 * self.native.layout.num_entries
        self.params = torch.nn.Parameter((torch.rand(entries, generator=generator) - 0.5) * 2e-4)

    def forward(self, x: Tensor) -> Tensor:
        seen.append((x, self.params))
        count = len(x)
        padded = -(-count // GRANULARITY) * GRANULARITY
        whole = x if padded == count else F.pad(x, [0, 0, 0, padded - count])
        output: Any = _Forward.apply(self.native, whole.to(torch.float).contiguous(), self.params.contiguous())
        return output[:count, : self.n_output_dims]
