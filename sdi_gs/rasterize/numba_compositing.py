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
# Pairs whose gradient sums are computed before they are gathered, 64 bytes each.
_PAIRS_AT_ONCE = 65536

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

    @property
    def num_images(self) -> int:
        """C."""
        return (len(self.tile_starts) - 1) // (self.grid[0] * self.grid[1])

    def shares(self, first: int, last: int) -> np.ndarray:  # [S + 1]
        """Return the first tile of each of a few shares for every thread, neighbours with about as many pairs.

        The tiles are those of images ``first`` to ``last``.
        """
        per_image = self.grid[0] * self.grid[1]
        begin, end = first * per_image, last * per_image
        first_slot, last_slot = self.slots(first, last)
        threads = num_threads(last_slot - first_slot, _SMALLEST_PAIRS)
        if threads == 1:
            return np.array([begin, end])
        # A tile is some work without pairs, too.
        work = self.tile_starts[begin : end + 1] + _PAIRS_OF_TILE * np.arange(end + 1 - begin)
        places = np.arange(1, _SHARES * threads) / (_SHARES * threads)
        inner = np.searchsorted(work, work[0] + (work[-1] - work[0]) * places)
        return np.array([begin, *(begin + inner), end])

    def slots(self, first: int, last: int) -> tuple[int, int]:
        """Return the range of the pairs of images ``first`` to ``last``."""
        per_image = self.grid[0] * self.grid[1]
        return int(self.tile_starts[first * per_image]), int(self.tile_starts[last * per_image])

    def groups(self) -> list[tuple[int, int]]:
        """Return the images in groups, as (first, last + 1), whose sums stay in the processor's cache."""
        per_image, starts = self.grid[0] * self.grid[1], [0]
        for image in range(1, self.num_images):
            pairs = self.tile_starts[(image + 1) * per_image] - self.tile_starts[starts[-1] * per_image]
            if pairs > _PAIRS_AT_ONCE:
                starts.append(image)
        return list(zip(starts, [*starts[1:], self.num_images], strict=True))


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
    """means2d, conics, opacities, colors, backgrounds -> rendered colours and alphas.

    Opacities and colours without a camera dimension are those of all cameras. C and N are 1 and M for packed items.
    """

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        means2d: Tensor,  # [C, N, 2]
        conics: Tensor,  # [C, N, 3]
        opacities: Tensor,  # [(C,) N]
        colors: Tensor,  # [(C,) N, D]
        backgrounds: Tensor | None,  # [C, D]
        tiles: Tiles,
        view: View,
        absgrad_owner: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        num_channels, num_gaussians = colors.shape[-1], means2d.shape[-2]
        splats = (_rows(means2d), _rows(conics), _rows(opacities[..., None])[:, 0], _rows(colors))
        num_items, num_images = len(splats[0]), tiles.num_images
        records = np.empty((num_items, tile_loops.record_length(num_channels)), np.float32)
        run_on_ranges(
            tile_loops.write_records, num_items, SMALLEST_ITEMS, num_gaussians, tiles.item_starts, *splats, records
        )
        rendered = torch.empty((num_images, view.height, view.width, num_channels))
        alphas = torch.empty((num_images, view.height, view.width, 1))
        behind = np.zeros((num_images, num_channels), np.float32) if backgrounds is None else as_numpy(backgrounds)
        num_pairs, shares = len(tiles.flatten_ids), tiles.shares(0, num_images)
        pair_blocks = np.empty(num_pairs, np.uint32)
        stops = np.empty((len(tiles.tile_starts) - 1, tile_loops.TILE_PIXELS), np.float32)
        run_interleaved(
            compositing.composite,
            len(shares) - 1,
            num_pairs,
            _SMALLEST_PAIRS,
            shares,
            tiles.grid,
            tiles.tile_starts,
            tiles.flatten_ids,
            records,
            (0,) * num_channels,
            behind,
            rendered.numpy(),
            alphas.numpy().reshape(alphas.shape[:3]),
            pair_blocks,
            stops,
        )
        ctx.save_for_backward(conics, opacities, rendered, alphas)
        ctx.tiles, ctx.records, ctx.pair_blocks, ctx.stops = tiles, records, pair_blocks, stops
        ctx.colors_shape, ctx.absgrad_owner, ctx.packed = colors.shape, absgrad_owner, means2d.dim() == 2
        return rendered, alphas

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_rendered: Tensor, grad_alphas: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        conics, opacities, rendered, alphas = ctx.saved_tensors
        shape, for_absgrad = conics.shape[:-1], ctx.absgrad_owner is not None
        grad_means2d, grad_conics = torch.empty((*shape, 2)), torch.empty(conics.shape)
        grad_opacities, grad_colors = torch.zeros(opacities.shape), torch.zeros(ctx.colors_shape)
        absgrads = torch.empty((*shape, 2) if for_absgrad else (0, 2))
        pictures = (rendered, alphas.squeeze(-1), grad_rendered, grad_alphas.squeeze(-1))
        written = (*map(_rows, (grad_means2d, grad_conics)), grad_opacities.numpy().reshape(-1))
        _differentiate(
            ctx,
            tuple(map(as_numpy, pictures)),
            (_rows(conics), as_numpy(opacities).reshape(-1)),
            (*written, _rows(grad_colors), _rows(absgrads)),
        )
        if for_absgrad:
            ctx.absgrad_owner.absgrad = absgrads.reshape(ctx.absgrad_owner.shape)
        grad_backgrounds = None
        if ctx.needs_input_grad[4]:
            grad_backgrounds = (grad_rendered * (1.0 - alphas)).sum(dim=(1, 2))
        return grad_means2d, grad_conics, grad_opacities, grad_colors, grad_backgrounds, None, None, None


def _rows(
    tensor: Tensor,  # [..., K]
) -> np.ndarray:  # [R, K]
    return as_numpy(tensor).reshape(-1, tensor.shape[-1])


def _differentiate(
    ctx: Any, pictures: tuple[np.ndarray, ...], splats: tuple[np.ndarray, ...], written: tuple[np.ndarray, ...]
) -> None:
    """Write the gradients of all items, the images in groups."""
    tiles, (conics, opacities) = ctx.tiles, splats
    num_channels, for_absgrad = pictures[0].shape[-1], ctx.absgrad_owner is not None
    sums_length = compositing_backward.pair_length(num_channels, absgrad=for_absgrad)
    # Packed items are those of one camera, all in a group.
    packed, num_gaussians = ctx.packed, ctx.colors_shape[-2]
    for first, last in [(0, tiles.num_images)] if packed else tiles.groups():
        first_slot, last_slot = tiles.slots(first, last)
        shares, num_pairs = tiles.shares(first, last), last_slot - first_slot
        pair_sums = _scratch_floats(num_pairs * sums_length).reshape(num_pairs, sums_length)
        run_interleaved(
            compositing_backward.composite_backward,
            len(shares) - 1,
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
            *pictures,
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
            conics,
            opacities,
            *written,
        )
