"""Tile lists, and compositing as an autograd function around the numba kernels.

Letters: C cameras, D colour channels, H W pixels, M items (a Gaussian in a camera), P (Gaussian, tile) pairs.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sdi_gs.rasterize.kernels import binning, compositing
from sdi_gs.rasterize.numba_projection import SMALLEST_ITEMS, View, as_numpy
from sdi_gs.rasterize.threads import num_threads, run_each, run_interleaved, run_on_ranges

# Pairs that are worth waking a thread for: about 0.1 ms of compositing and of binning.
_SMALLEST_PAIRS = 2048
_SMALLEST_BINNED = 16384

_scratch = threading.local()


def _scratch_floats(count: int) -> np.ndarray:  # [count]
    """Return uninitialised memory that this thread reuses: mapping fresh pages takes longer than the sums."""
    buffer = getattr(_scratch, "buffer", None)
    if buffer is None or len(buffer) < count:
        buffer = _scratch.buffer = np.empty(count + count // 4, np.float32)
    return buffer[:count]


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """The Gaussians of every tile, front to back."""

    grid: tuple[int, int]
    """Tiles along x and y."""
    item_starts: np.ndarray  # [M + 1] int64
    tile_starts: np.ndarray  # [C * tiles + 1] int64
    flatten_ids: np.ndarray  # [P] int32
    pair_slots: np.ndarray  # [P] int32

    def order(self) -> np.ndarray:  # [C * tiles]
        """Return the tiles' numbers, fullest tile first, so that all threads finish at about the same time."""
        return np.argsort(-np.diff(self.tile_starts), kind="stable")


def bin_tiles(
    means2d: Tensor,  # [M, 2]
    radii: Tensor,  # [M, 2]
    depths: Tensor,  # [M]
    tiles_per_gauss: Tensor,  # [M]
    image_starts: np.ndarray,  # [C + 1]
    grid: tuple[int, int],
) -> Tiles:
    """List the Gaussians of every tile front to back; ``image_starts`` holds each camera's first item."""
    item_starts = np.zeros(len(depths) + 1, np.int64)
    np.cumsum(tiles_per_gauss.numpy(), out=item_starts[1:])
    num_images, num_pairs = len(image_starts) - 1, int(item_starts[-1])
    tile_starts = np.zeros(num_images * grid[0] * grid[1] + 1, np.int64)
    tiles = Tiles(
        grid=grid,
        item_starts=item_starts,
        tile_starts=tile_starts,
        flatten_ids=np.empty(num_pairs, np.int32),
        pair_slots=np.empty(num_pairs, np.int32),
    )

    num_visible = np.empty(num_images, np.int64)
    spans, sorted_items = np.empty((len(depths), 4), np.int32), np.empty(len(depths), np.int32)
    run_each(
        binning.sort_image,
        num_images,
        len(depths),
        SMALLEST_ITEMS,
        grid,
        image_starts,
        as_numpy(means2d),
        radii.numpy(),
        as_numpy(depths).view(np.uint32),
        item_starts,
        tile_starts,
        num_visible,
        spans,
        sorted_items,
    )
    num_bands = -(-num_threads(num_pairs, _SMALLEST_BINNED) // num_images)
    run_each(
        binning.fill_tiles,
        num_images * num_bands,
        num_pairs,
        _SMALLEST_BINNED,
        num_bands,
        grid,
        image_starts,
        item_starts,
        tile_starts,
        num_visible,
        spans,
        sorted_items,
        tiles.flatten_ids,
        tiles.pair_slots,
    )
    return tiles


class Composite(torch.autograd.Function):
    """means2d, conics, opacities, colors, backgrounds -> rendered colours and alphas."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        means2d: Tensor,  # [M, 2]
        conics: Tensor,  # [M, 3]
        opacities: Tensor,  # [M]
        colors: Tensor,  # [M, D]
        backgrounds: Tensor,  # [C, D]
        tiles: Tiles,
        view: View,
        absgrad_owner: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        num_channels = colors.shape[1]
        records = np.empty((len(means2d), compositing.record_length(num_channels)), np.float32)
        splats = tuple(map(as_numpy, (means2d, conics, opacities, colors)))
        run_on_ranges(compositing.write_records, len(records), SMALLEST_ITEMS, tiles.item_starts, *splats, records)
        rendered = torch.empty((len(backgrounds), view.height, view.width, num_channels))
        alphas = torch.empty((len(backgrounds), view.height, view.width, 1))
        pair_blocks = np.empty(len(tiles.flatten_ids), np.uint32)
        order = tiles.order()
        run_interleaved(
            compositing.composite,
            len(order),
            len(tiles.flatten_ids),
            _SMALLEST_PAIRS,
            order,
            tiles.grid,
            tiles.tile_starts,
            tiles.flatten_ids,
            records,
            (0,) * num_channels,
            as_numpy(backgrounds),
            rendered.numpy(),
            alphas[..., 0].numpy(),
            pair_blocks,
        )
        ctx.save_for_backward(conics, opacities, rendered, alphas)
        ctx.tiles, ctx.records, ctx.order, ctx.pair_blocks = tiles, records, order, pair_blocks
        ctx.absgrad_owner = absgrad_owner
        return rendered, alphas

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_rendered: Tensor, grad_alphas: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        conics, opacities, rendered, alphas = ctx.saved_tensors
        tiles: Tiles = ctx.tiles
        num_items, num_channels = len(conics), rendered.shape[-1]
        pair_shape = (len(tiles.flatten_ids), compositing.pair_length(num_channels))
        pair_sums = _scratch_floats(pair_shape[0] * pair_shape[1]).reshape(pair_shape)
        run_interleaved(
            compositing.composite_backward,
            len(ctx.order),
            len(tiles.flatten_ids),
            _SMALLEST_PAIRS,
            ctx.order,
            tiles.grid,
            tiles.tile_starts,
            tiles.flatten_ids,
            tiles.pair_slots,
            ctx.pair_blocks,
            ctx.records,
            (0,) * num_channels,
            () if ctx.absgrad_owner is None else (0,),
            rendered.numpy(),
            alphas[..., 0].numpy(),
            as_numpy(grad_rendered),
            as_numpy(grad_alphas[..., 0]),
            pair_sums,
        )
        grad_means2d, grad_conics = torch.empty((num_items, 2)), torch.empty((num_items, 3))
        grad_opacities, grad_colors = torch.empty(num_items), torch.empty((num_items, num_channels))
        absgrads = torch.empty((0 if ctx.absgrad_owner is None else num_items, 2))
        run_on_ranges(
            compositing.gather_gradients,
            num_items,
            SMALLEST_ITEMS,
            tiles.item_starts,
            pair_sums,
            as_numpy(conics),
            as_numpy(opacities),
            *(t.numpy() for t in (grad_means2d, grad_conics, grad_opacities, grad_colors, absgrads)),
        )
        if ctx.absgrad_owner is not None:
            ctx.absgrad_owner.absgrad = absgrads.reshape(ctx.absgrad_owner.shape)
        grad_backgrounds = None
        if ctx.needs_input_grad[4]:
            grad_backgrounds = (grad_rendered * (1.0 - alphas)).sum(dim=(1, 2))
        return grad_means2d, grad_conics, grad_opacities, grad_colors, grad_backgrounds, None, None, None
