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

from sdi_gs.rasterize.kernels import binning, compositing, compositing_backward
from sdi_gs.rasterize.kernels import tiles as tile_loops
from sdi_gs.rasterize.numba_projection import SMALLEST_ITEMS, Items, as_arrays, differentiable_once
from sdi_gs.rasterize.request import RenderRequest
from sdi_gs.rasterize.threads import num_threads, run_interleaved, run_on_ranges

# Pairs that are worth waking a thread for: about 0.1 ms of compositing and of binning.
_SMALLEST_PAIRS = 2048
_SMALLEST_BINNED = 16384
# Shares of the tiles for each thread: pixels that end early make shares with as many pairs unequal.
_SHARES = 8
_PAIRS_OF_TILE = 32
# Pairs whose gradient sums are computed before they are gathered, 64 bytes each: about what a core's cache holds.
_PAIRS_AT_ONCE = 16384

_scratch = threading.local()


def _scratch_floats(count: int) -> np.ndarray:  # [count]
    """Return uninitialised memory that this thread reuses: mapping fresh pages takes longer than the sums."""
    buffer = getattr(_scratch, "buffer", None)
    if buffer is None or len(buffer) < count:
        buffer = _scratch.buffer = torch.empty(count + count // 4).numpy()
    return buffer[:count]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tiles:
    """The Gaussians of every tile, front to back."""

    grid: tuple[int, int]
    """Tiles along x and y."""
    image_pairs: list[int]
    """First pair of each image, and their number."""
    item_starts: np.ndarray  # [M + 1] int64
    tile_starts: np.ndarray  # [images * tiles + 1] int64
    flatten_ids: np.ndarray  # [P] int32
    pair_slots: np.ndarray  # [P] int32

    def shares(self, first: int, last: int) -> np.ndarray:  # [S + 1]
        """Return the first tile of each of a few shares for every thread, neighbours with about as many pairs.

        The tiles are those of images ``first`` to ``last``.
        """
        per_image = self.grid[0] * self.grid[1]
        begin, end = first * per_image, last * per_image
        num_pairs = self.image_pairs[last] - self.image_pairs[first]
        threads = num_threads(num_pairs, _SMALLEST_PAIRS)
        if threads == 1:
            return np.array([begin, end])
        # A tile is some work without pairs, too.
        work = self.tile_starts[begin : end + 1] + _PAIRS_OF_TILE * np.arange(end + 1 - begin)
        places = np.arange(1, _SHARES * threads) / (_SHARES * threads)
        inner = np.searchsorted(work, work[0] + (work[-1] - work[0]) * places)
        return np.array([begin, *(begin + inner), end])

    def groups(self) -> list[tuple[int, int]]:
        """Return the images in groups, as (first, last + 1), whose sums stay in the processor's cache."""
        num_images, starts = len(self.image_pairs) - 1, [0]
        if self.image_pairs[num_images] > _PAIRS_AT_ONCE:
            for image in range(1, num_images):
                if self.image_pairs[image + 1] - self.image_pairs[starts[-1]] > _PAIRS_AT_ONCE:
                    starts.append(image)
        return list(zip(starts, [*starts[1:], num_images], strict=True))


def bin_tiles(items: Items, grid: tuple[int, int]) -> Tiles:
    """List the Gaussians of every tile front to back."""
    num_images, num_items = items.image_starts.shape[0] - 1, items.depths.size
    per_image = grid[0] * grid[1]
    item_starts = np.empty(num_items + 1, np.int64)
    num_pairs = binning.list_starts(items.tiles_per_gauss, item_starts)
    tile_starts = np.zeros(num_images * per_image + 1, np.int64)
    num_visible = np.empty(num_images, np.int64)
    spans, sorted_items = np.empty((num_items, 4), np.int32), np.empty(num_items, np.int32)
    run_interleaved(
        binning.sort_images,
        num_images,
        num_items,
        SMALLEST_ITEMS,
        grid,
        items.image_starts,
        items.means2d,
        items.radii,
        items.depths,
        item_starts,
        tile_starts,
        num_visible,
        spans,
        sorted_items,
    )
    tiles = Tiles(
        grid=grid,
        image_pairs=tile_starts[::per_image].tolist(),
        item_starts=item_starts,
        tile_starts=tile_starts,
        flatten_ids=np.empty(num_pairs, np.int32),
        pair_slots=np.empty(num_pairs, np.int32),
    )
    num_bands = -(-num_threads(num_pairs, _SMALLEST_BINNED) // num_images)
    run_interleaved(
        binning.fill_tiles,
        num_images * num_bands,
        num_pairs,
        _SMALLEST_BINNED,
        num_bands,
        grid,
        items.image_starts,
        item_starts,
        tile_starts,
        num_visible,
        spans,
        sorted_items,
        tiles.flatten_ids,
        tiles.pair_slots,
    )
    return tiles


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawing:
    """What is composited, beside the tensors of the graph."""

    request: RenderRequest
    items: Items
    tiles: Tiles
    absgrad_owner: Tensor | None
    """The centres, which get the absolute gradients; None if those are not wanted."""


class Composite(torch.autograd.Function):
    """means2d, conics, opacities, colors, backgrounds -> rendered colours and alphas.

    Opacities and colours without a camera dimension are those of all cameras. C and N are 1 and M for packed items.
    """

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        means2d: Tensor,  # [(C,) N, 2]
        conics: Tensor,  # [(C,) N, 3]
        opacities: Tensor,  # [(C,) N]
        colors: Tensor,  # [(C,) N, D]
        backgrounds: Tensor | None,  # [C, D]
        drawing: Drawing,
    ) -> tuple[Tensor, Tensor]:
        request, items, tiles = drawing.request, drawing.items, drawing.tiles
        num_channels, num_gaussians = colors.shape[-1], items.depths.shape[1]
        num_images, num_pairs = items.image_starts.shape[0] - 1, tiles.flatten_ids.size
        opacity_array, color_array = as_arrays(opacities, colors)
        opacity_array, color_array = opacity_array.reshape(-1), color_array.reshape(-1, num_channels)
        # Memory of torch begins with a cache line, so that no record lies in two.
        records = torch.empty((items.depths.size, tile_loops.record_length(num_channels))).numpy()
        run_on_ranges(
            tile_loops.write_records,
            num_gaussians,
            SMALLEST_ITEMS // num_images,
            num_gaussians,
            tiles.item_starts,
            items.means2d,
            items.conics,
            opacity_array,
            color_array,
            records,
        )
        rendered = np.empty((num_images, request.height, request.width, num_channels), np.float32)
        alphas = np.empty((num_images, request.height, request.width, 1), np.float32)
        if backgrounds is None:
            behind = np.zeros((num_images, num_channels), np.float32)
        else:
            (behind,) = as_arrays(backgrounds)
        shares = tiles.shares(0, num_images)
        pair_blocks = np.empty(num_pairs, np.uint32)
        stops = torch.empty((tiles.tile_starts.size - 1, tile_loops.TILE_PIXELS)).numpy()
        run_interleaved(
            compositing.composite,
            shares.size - 1,
            num_pairs,
            _SMALLEST_PAIRS,
            shares,
            tiles.grid,
            tiles.tile_starts,
            tiles.flatten_ids,
            records,
            (0,) * num_channels,
            behind,
            rendered,
            alphas,
            pair_blocks,
            stops,
        )
        images = (torch.from_numpy(rendered), torch.from_numpy(alphas))
        # Saved although their arrays are kept: torch refuses a backward pass after one was changed in place.
        ctx.save_for_backward(conics, opacities, *images)
        ctx.drawing, ctx.records, ctx.pair_blocks, ctx.stops = drawing, records, pair_blocks, stops
        ctx.opacities, ctx.images, ctx.colors_shape = opacity_array, (rendered, alphas), colors.shape
        return images

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, grad_rendered: Tensor, grad_alphas: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        conics, opacities, _, alphas = ctx.saved_tensors
        drawing: Drawing = ctx.drawing
        shape, for_absgrad = drawing.items.depths.shape, drawing.absgrad_owner is not None
        grad_means2d, grad_conics = np.empty((*shape, 2), np.float32), np.empty((*shape, 3), np.float32)
        grad_opacities, grad_colors = np.zeros(opacities.shape, np.float32), np.zeros(ctx.colors_shape, np.float32)
        absgrads = np.empty((*shape, 2) if for_absgrad else (0, 0, 2), np.float32)
        rows = (grad_opacities.reshape(-1), grad_colors.reshape(-1, ctx.colors_shape[-1]))
        _differentiate(ctx, as_arrays(grad_rendered, grad_alphas), (grad_means2d, grad_conics, *rows, absgrads))
        if conics.ndim == 2:
            grad_means2d, grad_conics = grad_means2d[0], grad_conics[0]
        owner: Any = drawing.absgrad_owner
        if owner is not None:
            owner.absgrad = torch.from_numpy(absgrads).reshape(owner.shape)
        grad_backgrounds = None
        if ctx.needs_input_grad[4]:
            grad_backgrounds = (grad_rendered * (1.0 - alphas)).sum(dim=(1, 2))
        gradients = map(torch.from_numpy, (grad_means2d, grad_conics, grad_opacities, grad_colors))
        return (*gradients, grad_backgrounds, None)


def _differentiate(ctx: Any, gradients: list[np.ndarray], written: tuple[np.ndarray, ...]) -> None:
    """Write the gradients of all items, the images in groups, from those of the rendered colours and alphas."""
    drawing: Drawing = ctx.drawing
    tiles, items = drawing.tiles, drawing.items
    num_gaussians, num_channels = items.depths.shape[1], gradients[0].shape[-1]
    for_absgrad = drawing.absgrad_owner is not None
    sums_length = compositing_backward.pair_length(num_channels, absgrad=for_absgrad)
    # Packed items are those of one camera, all in a group.
    packed = items.depths.shape[0] < len(tiles.image_pairs) - 1
    for first, last in [(0, len(tiles.image_pairs) - 1)] if packed else tiles.groups():
        first_slot = tiles.image_pairs[first]
        shares, num_pairs = tiles.shares(first, last), tiles.image_pairs[last] - first_slot
        pair_sums = _scratch_floats(num_pairs * sums_length).reshape(num_pairs, sums_length)
        run_interleaved(
            compositing_backward.composite_backward,
            shares.size - 1,
            num_pairs,
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
            (0,) if for_absgrad else (),
            *ctx.images,
            *gradients,
            first_slot,
            pair_sums,
        )
        run_on_ranges(
            compositing_backward.gather_gradients,
            num_gaussians,
            SMALLEST_ITEMS // (last - first),
            (0, 1) if packed else (first, last),
            num_gaussians,
            first_slot,
            tiles.item_starts,
            pair_sums,
            items.conics,
            ctx.opacities,
            *written,
        )
