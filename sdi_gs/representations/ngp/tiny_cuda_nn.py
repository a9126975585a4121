"""The hash encoding by tiny-cuda-nn instead of torch operations: same table, same features, same slopes.

The table stays the field's own; tiny-cuda-nn's module borrows the levels in use during a call. Its float32 kernels are
requested, since half precision would not give the torch path's results. Slopes are its gradient by the input, which it
can differentiate once more, by the table and by the direction (``bwd_bwd_input`` of its bindings).

Letters: P points, L levels, E entries of the table.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdi_gs.representations.ngp.hash_grid import FEATURES, GridLayout
from sdi_gs.settings.ngp import HashGridConfig

_SCALE_ERROR = 1e-5
"""Relative error that float32 exponentials may cause in a level's scale."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Features of P points."""

    features: Tensor  # [P, 2 L]
    slopes_along: Callable[[Tensor], Tensor] | None
    """Map directions [P, 2 L] among the features to their derivatives [P, 3] by the coordinates."""


@functools.cache
def same_grid(layout: GridLayout) -> bool:
    """Return whether tiny-cuda-nn, which computes scales in float32, gets the same number of vertices on every level.

    This matters on levels that are stored densely, or nearly so.
    """
    # The first level's scale is exact, and so are all where the growth is a power of two.
    exact = math.log2(layout.config.growth).is_integer()
    return exact or all(
        math.ceil(scale * (1.0 - _SCALE_ERROR)) == math.ceil(scale * (1.0 + _SCALE_ERROR))
        for scale, resolution in zip(layout.scales[1:], layout.resolutions[1:], strict=True)
        if (resolution - 1) ** 3 <= 2**layout.config.log2_table_size
    )


def encoding_config(config: HashGridConfig, num_levels: int) -> dict[str, Any]:
    """Return the first levels of a grid as tiny-cuda-nn's config."""
    return {
        "otype": "HashGrid",
        "n_levels": num_levels,
        "n_features_per_level": FEATURES,
        "log2_hashmap_size": config.log2_table_size,
        "base_resolution": config.base_resolution,
        "per_level_scale": config.growth,
        "interpolation": "Linear",
    }


def encode(
    points: Tensor,  # [P, 3] in [0, 1], P > 0
    table: Tensor,  # [E, 2] float32
    layout: GridLayout,
    *,
    num_levels: int,
    with_slopes: bool = False,
) -> Encoded:
    """Compute features of the first ``num_levels`` levels, 0 for the others."""
    wanted = torch.is_grad_enabled()
    points = points.detach()
    if not with_slopes:
        return Encoded(features=_features(points, table, layout, num_levels), slopes_along=None)
    with torch.enable_grad():
        points.requires_grad_()
        features = _features(points, table, layout, num_levels)

    def slopes_along(
        directions: Tensor,  # [P, 2 L]
    ) -> Tensor:  # [P, 3]
        (slopes,) = torch.autograd.grad(features, points, directions, create_graph=wanted)
        return _with_contiguous_gradient(slopes)

    return Encoded(features=features if wanted else features.detach(), slopes_along=slopes_along)


def _features(points: Tensor, table: Tensor, layout: GridLayout, num_levels: int) -> Tensor:  # [P, 2 L]
    # A level's entries do not depend on how many levels come after it.
    used = table[: layout.offsets[num_levels]].reshape(-1)
    with _on(points.device):
        encoding = _encoding(layout.config, num_levels, points.device)
        features = torch.func.functional_call(encoding, {"params": used}, (points.contiguous(),))
    # It may pad its output.
    features = _with_contiguous_gradient(features[:, : FEATURES * num_levels])
    return F.pad(features, (0, FEATURES * (layout.num_levels - num_levels)))


@functools.lru_cache(maxsize=2)
def _encoding(config: HashGridConfig, num_levels: int, device: torch.device) -> nn.Module:
    """Return tiny-cuda-nn's module on a device, without a table of its own."""
    import tinycudann  # pyright: ignore[reportMissingImports]

    encoding = tinycudann.Encoding(3, encoding_config(config, num_levels), dtype=torch.float32)
    encoding.params = nn.Parameter(torch.empty(0, device=device), requires_grad=False)
    return encoding


def _on(device: torch.device) -> AbstractContextManager[object]:
    """Make the tensors' card the current one, on which tiny-cuda-nn allocates."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _with_contiguous_gradient(values: Tensor) -> Tensor:
    """Return the same values; their gradient gets the layout that tiny-cuda-nn's pointers assume."""
    if values.requires_grad:
        values.register_hook(lambda gradient: gradient.contiguous())
    return values
