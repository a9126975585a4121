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

from sdi_gs.rasterize.kernels import binning, compositing, compositing_backward
from sdi_gs.rasterize.kernels import tiles as tile_loops
from sdi_gs.rasterize.numba_projection import SMALLEST_ITEMS, View, as_numpy
from sdi_gs.rasterize.threads import num_threads, run_each, run_interleaved, run_on_ranges

# Pairs that are worth waking a thread for: about 0.1 ms of compositing and of binning.
_SMALLEST_PAIRS = 2048
_SMALLEST_BINNED = 16384
# Shares of the tiles for each thread: pixels that end early make shares with as many pairs unequal.
_SHARES = 8
_PAIRS_OF_TILE = 32

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

    def shares(self) -> np.ndarray:  # [S + 1]
        """Return the first tile of each of a few shares for every thread, neighbours with about as many pairs."""
        num_tiles, num_pairs = len(self.tile_starts) - 1, len(self.flatten_ids)
        threads = num_threads(num_pairs, _SMALLEST_PAIRS)
        if threads == 1:
            return np.array([0, num_tiles])
        # A tile is some work without pairs, too.
        work = self.tile_starts + _PAIRS_OF_TILE * np.arange(num_tiles + 1)
        inner = np.searchsorted(work, work[-1] * np.arange(1, _SHARES * threads) / (_SHARES * threads))
        return np.array([0, *inner, num_tiles])


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
        records = np.empty((len(means2d), tile_loops.record_length(num_channels)), np.float32)
        splats = tuple(map(as_numpy, (means2d, conics, opacities, colors)))
        run_on_ranges(tile_loops.write_records, len(records), SMALLEST_ITEMS, tiles.item_starts, *splats, records)
        rendered = torch.empty((len(backgrounds), view.height, view.width, num_channels))
        alphas = torch.empty((len(backgrounds), view.height, view.width, 1))
        pair_blocks = np.empty(len(tiles.flatten_ids), np.uint32)
        shares = tiles.shares()
        stops = np.empty((len(tiles.tile_starts) - 1, tile_loops.TILE_PIXELS), np.float32)
        run_interleaved(
            compositing.composite,
            len(shares) - 1,
            len(tiles.flatten_ids),
            _SMALLEST_PAIRS,
            shares,
            tiles.grid,
            tiles.tile_starts,
            tiles.flatten_ids,
            records,
            (0,) * num_channels,
            as_numpy(backgrounds),
            rendered.numpy(),
            alphas[..., 0].numpy(),
            pair_blocks,
            stops,
        )
        ctx.save_for_backward(conics, opacities, rendered, alphas)
        ctx.tiles, ctx.records, ctx.pair_blocks, ctx.stops = tiles, records, pair_blocks, stops
        ctx.absgrad_owner = absgrad_owner
        return rendered, alphas

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_rendered: Tensor, grad_alphas: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        conics, opacities, rendered, alphas = ctx.saved_tensors
        tiles: Tiles = ctx.tiles
        num_items, num_channels = len(conics), rendered.shape[-1]
        shares = tiles.shares()
        pair_shape = (len(tiles.flatten_ids), compositing_backward.pair_length(num_channels, absgrad=ctx.absgrad_owner is not None))
        pair_sums = _scratch_floats(pair_shape[0] * pair_shape[1]).reshape(pair_shape)
        run_interleaved(
            compositing_backward.composite_backward,
            len(shares) - 1,
            len(tiles.flatten_ids),
            _SMALLEST_PAIRS,
            shares,
            tiles.grid,
            tiles.tile_starts,
            tiles.flatten_ids,
            tiles.pair_slots,
            ctx.pair_blocks,
            ctx.stops,
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
            compositing_backward.gather_gradients,
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
