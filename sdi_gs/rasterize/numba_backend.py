"""The CPU backend: autograd functions around the numba kernels, and gsplat's meta dict.

Two functions, as in gsplat: ``_Project`` (3D to image plane) and ``_Composite`` (image plane to pixels), so that
``meta["means2d"]`` is a tensor of the graph and ``retain_grad()`` works on it.

Letters: C cameras, N Gaussians, D colour channels, K harmonic bases, H W pixels, M items (a Gaussian in a
camera), P (Gaussian, tile) pairs.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, assert_never

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sdi_gs.rasterize import CameraModel, RasterizeMode, RenderMode
from sdi_gs.rasterize.kernels import binning, compositing, projection, projection_backward
from sdi_gs.rasterize.kernels.simd import LANES
from sdi_gs.rasterize.spherical_harmonics import harmonic_colors
from sdi_gs.rasterize.threads import num_threads, run_each, run_interleaved, run_on_ranges

MAX_CHANNELS = 32
"""Channels composited in one pass, gsplat's ``channel_chunk``; a kernel is compiled per number of channels."""

# Work that is worth waking a thread for: about 0.1 ms of each kernel.
_SMALLEST_ITEMS = 4096
_SMALLEST_PAIRS = 2048
_SMALLEST_BINNED = 16384

_scratch = threading.local()


def _scratch_floats(count: int) -> np.ndarray:  # [count]
    """Uninitialised memory that this thread reuses: fresh pages would cost more than the sums they take."""
    buffer = getattr(_scratch, "buffer", None)
    if buffer is None or len(buffer) < count:
        buffer = _scratch.buffer = np.empty(count + count // 4, np.float32)
    return buffer[:count]


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


@dataclass(frozen=True, kw_only=True)
class _View:
    """What the projection needs besides tensors."""

    width: int
    """Pixels."""
    height: int
    """Pixels."""
    near_plane: float
    """Depth below which Gaussians are culled."""
    far_plane: float
    """Depth above which Gaussians are culled."""
    radius_clip: float
    """Pixels; Gaussians whose radii are both at most this are culled."""
    eps2d: float
    """Square pixels added to both image variances."""
    antialiased: bool
    """Whether opacity is lowered for the blur that eps2d adds."""
    ortho: bool
    """Whether the cameras project along parallel rays."""

    @property
    def grid(self) -> tuple[int, int]:
        """Tiles along x and y."""
        return -(-self.width // projection.TILE_SIZE), -(-self.height // projection.TILE_SIZE)


class _Project(torch.autograd.Function):
    """Gaussians and viewmats -> means2d, depths, conics, compensations (in the graph), radii and tiles_per_gauss."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        means: Tensor,  # [N, 3]
        quats: Tensor | None,  # [N, 4]
        scales: Tensor | None,  # [N, 3]
        covars: Tensor | None,  # [N, 6] instead of the two
        opacities: Tensor,  # [N]
        viewmats: Tensor,  # [C, 4, 4]
        intrinsics: Tensor,  # [C, 3, 3]
        view: _View,
    ) -> tuple[Tensor, ...]:
        num_cameras, num_gaussians = len(viewmats), len(means)
        shape = (num_cameras, num_gaussians)
        radii = torch.empty((*shape, 2), dtype=torch.int32)
        tiles_per_gauss = torch.empty(shape, dtype=torch.int32)
        means2d, depths, conics = torch.empty((*shape, 2)), torch.empty(shape), torch.empty((*shape, 3))
        compensations = torch.empty(shape if view.antialiased else (0, 0))
        run_on_ranges(
            projection.project,
            num_gaussians,
            _SMALLEST_ITEMS // num_cameras,
            _numpy(means),
            *_shape_arguments(quats, scales, covars),
            *map(_numpy, (opacities, viewmats, intrinsics)),
            (view.width, view.height),
            tuple(map(np.float32, (view.eps2d, view.near_plane, view.far_plane, view.radius_clip))),
            view.antialiased,
            _flag(view.ortho),
            *(t.numpy() for t in (radii, means2d, depths, conics, compensations, tiles_per_gauss)),
        )
        ctx.save_for_backward(means, quats, scales, covars, viewmats, intrinsics, radii)
        ctx.view = view
        ctx.mark_non_differentiable(radii, tiles_per_gauss)
        return means2d, depths, conics, compensations, radii, tiles_per_gauss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        means, quats, scales, covars, viewmats, intrinsics, radii = ctx.saved_tensors
        view: _View = ctx.view
        from_covars, for_views = covars is not None, ctx.needs_input_grad[5]
        shapes = ((0, 4), (0, 3), covars.shape) if from_covars else (quats.shape, scales.shape, (0, 6))
        grad_means, grad_quats, grad_scales, grad_covars = map(torch.empty, (means.shape, *shapes))
        num_blocks = -(-len(means) // LANES) if for_views else 0
        grad_views = np.zeros((num_blocks, len(viewmats), projection_backward.VIEW_LENGTH), np.float32)
        run_on_ranges(
            projection_backward.project_backward,
            len(means),
            _SMALLEST_ITEMS // len(viewmats),
            _numpy(means),
            *_shape_arguments(quats, scales, covars),
            *map(_numpy, (viewmats, intrinsics)),
            (view.width, view.height),
            np.float32(view.eps2d),
            view.antialiased,
            _flag(view.ortho),
            radii.numpy(),
            *map(_numpy, gradients[:4]),
            *(t.numpy() for t in (grad_means, grad_quats, grad_scales, grad_covars)),
            _flag(for_views),
            grad_views,
        )
        grad_viewmats = _sum_views(grad_views) if for_views else None
        if from_covars:
            return grad_means, None, None, grad_covars, None, grad_viewmats, None, None
        return grad_means, grad_quats, grad_scales, None, None, grad_viewmats, None, None


def _flag(value: bool) -> tuple[int, ...]:
    """A flag as part of an argument's type, for which kernels are compiled anew."""
    return (0,) if value else ()


def _shape_arguments(
    quats: Tensor | None,  # [N, 4]
    scales: Tensor | None,  # [N, 3]
    covars: Tensor | None,  # [N, 6]
) -> tuple[Any, ...]:
    """What the projection's kernels take for the Gaussians' shapes."""
    given = ((quats, 4), (scales, 3), (covars, 6))
    arrays = [np.empty((0, width), np.float32) if tensor is None else _numpy(tensor) for tensor, width in given]
    return *arrays, _flag(covars is not None)


def _sum_views(blocks: np.ndarray) -> Tensor:  # [C, 4, 4]
    """The gradient of the view matrices from their blocks' [B, C, VIEW_LENGTH], in one order and without rounding."""
    sums = torch.from_numpy(blocks.sum(axis=0, dtype=np.float64).astype(np.float32))
    gradient = torch.zeros(len(sums), 4, 4)
    gradient[:, :3, :3] = sums[:, :9].reshape(-1, 3, 3)
    gradient[:, :3, 3] = sums[:, 9:12]
    return gradient


@dataclass(frozen=True, kw_only=True)
class _Tiles:
    """The Gaussians of every tile, front to back."""

    grid: tuple[int, int]
    """Tiles along x and y."""
    item_starts: np.ndarray  # [M + 1] int64
    tile_starts: np.ndarray  # [C * tiles + 1] int64
    flatten_ids: np.ndarray  # [P] int32
    pair_slots: np.ndarray  # [P] int32

    def order(self) -> np.ndarray:  # [C * tiles]
        """Fullest tiles first, so that threads end together."""
        return np.argsort(-np.diff(self.tile_starts), kind="stable")


def _bin(
    means2d: Tensor,  # [M, 2]
    radii: Tensor,  # [M, 2]
    depths: Tensor,  # [M]
    tiles_per_gauss: Tensor,  # [M]
    image_starts: np.ndarray,  # [C + 1]
    grid: tuple[int, int],
) -> _Tiles:
    item_starts = np.zeros(len(depths) + 1, np.int64)
    np.cumsum(tiles_per_gauss.numpy(), out=item_starts[1:])
    num_images, num_pairs = len(image_starts) - 1, int(item_starts[-1])
    tile_starts = np.zeros(num_images * grid[0] * grid[1] + 1, np.int64)
    tiles = _Tiles(
        grid=grid,
        item_starts=item_starts,
        tile_starts=tile_starts,
        flatten_ids=np.empty(num_pairs, np.int32),
        pair_slots=np.empty(num_pairs, np.int32),
    )

    num_visible = np.empty(num_images, np.int64)
    sorted_items, sorted_spans = np.empty(len(depths), np.int32), np.empty((len(depths), 4), np.int32)
    run_each(
        binning.sort_image,
        num_images,
        len(depths),
        _SMALLEST_ITEMS,
        grid,
        image_starts,
        _numpy(means2d),
        radii.numpy(),
        _numpy(depths).view(np.uint32),
        item_starts,
        tile_starts,
        num_visible,
        sorted_items,
        sorted_spans,
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
        sorted_items,
        sorted_spans,
        tiles.flatten_ids,
        tiles.pair_slots,
    )
    return tiles


class _Composite(torch.autograd.Function):
    """means2d, conics, opacities, colors, backgrounds -> rendered colours and alphas."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        means2d: Tensor,  # [M, 2]
        conics: Tensor,  # [M, 3]
        opacities: Tensor,  # [M]
        colors: Tensor,  # [M, D]
        backgrounds: Tensor,  # [C, D]
        tiles: _Tiles,
        view: _View,
        absgrad_owner: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        num_channels = colors.shape[1]
        records = np.empty((len(means2d), compositing.record_length(num_channels)), np.float32)
        splats = tuple(map(_numpy, (means2d, conics, opacities, colors)))
        run_on_ranges(compositing.write_records, len(records), _SMALLEST_ITEMS, tiles.item_starts, *splats, records)
        rendered = torch.empty((len(backgrounds), view.height, view.width, num_channels))
        alphas = torch.empty((len(backgrounds), view.height, view.width, 1))
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
            _numpy(backgrounds),
            rendered.numpy(),
            alphas[..., 0].numpy(),
        )
        ctx.save_for_backward(conics, opacities, rendered, alphas)
        ctx.tiles, ctx.records, ctx.order, ctx.absgrad_owner = tiles, records, order, absgrad_owner
        return rendered, alphas

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_rendered: Tensor, grad_alphas: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        conics, opacities, rendered, alphas = ctx.saved_tensors
        tiles: _Tiles = ctx.tiles
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
            ctx.records,
            (0,) * num_channels,
            () if ctx.absgrad_owner is None else (0,),
            rendered.numpy(),
            alphas[..., 0].numpy(),
            _numpy(grad_rendered),
            _numpy(grad_alphas[..., 0]),
            pair_sums,
        )
        grad_means2d, grad_conics = torch.empty((num_items, 2)), torch.empty((num_items, 3))
        grad_opacities, grad_colors = torch.empty(num_items), torch.empty((num_items, num_channels))
        absgrads = torch.empty((0 if ctx.absgrad_owner is None else num_items, 2))
        run_on_ranges(
            compositing.gather_gradients,
            num_items,
            _SMALLEST_ITEMS,
            tiles.item_starts,
            pair_sums,
            _numpy(conics),
            _numpy(opacities),
            *(t.numpy() for t in (grad_means2d, grad_conics, grad_opacities, grad_colors, absgrads)),
        )
        if ctx.absgrad_owner is not None:
            ctx.absgrad_owner.absgrad = absgrads.reshape(ctx.absgrad_owner.shape)
        grad_backgrounds = None
        if ctx.needs_input_grad[4]:
            grad_backgrounds = (grad_rendered * (1.0 - alphas)).sum(dim=(1, 2))
        return grad_means2d, grad_conics, grad_opacities, grad_colors, grad_backgrounds, None, None, None


def _colors_per_camera(
    means: Tensor,  # [N, 3]
    colors: Tensor,  # [(C,) N, D] or [(C,) N, K, 3]
    viewmats: Tensor,  # [C, 4, 4]
    sh_degree: int | None,
) -> Tensor:  # [C, N, D]
    """What each camera sees of each Gaussian."""
    own_dims = 2 if sh_degree is None else 3
    per_camera = colors.expand(len(viewmats), *colors.shape[-own_dims:])
    if sh_degree is None:
        return per_camera
    directions = means - torch.inverse(viewmats)[:, None, :3, 3]
    return (harmonic_colors(sh_degree, directions, per_camera) + 0.5).clamp_min(0.0)


def _choose_channels(
    render_mode: RenderMode,
    colors: Tensor,  # [..., D]
    depths: Tensor,  # [...]
    background: Tensor,  # [C, D]
) -> tuple[Tensor, Tensor]:
    """The channels to composite and their background; depth is the last one and has nothing behind it."""
    no_depth = torch.zeros(len(background), 1)
    match render_mode:
        case "RGB":
            return colors, background
        case "D" | "ED":
            return depths[..., None], no_depth
        case "RGB+D" | "RGB+ED":
            return torch.cat([colors, depths[..., None]], dim=-1), torch.cat([background, no_depth], dim=-1)
        case other:
            assert_never(other)


def rasterize(
    means: Tensor,  # [N, 3]
    quats: Tensor | None,  # [N, 4]
    scales: Tensor | None,  # [N, 3]
    opacities: Tensor,  # [N]
    colors: Tensor,  # [(C,) N, D] or [(C,) N, K, 3]
    viewmats: Tensor,  # [C, 4, 4]
    Ks: Tensor,  # [C, 3, 3]
    *,
    width: int,
    height: int,
    near_plane: float,
    far_plane: float,
    radius_clip: float,
    eps2d: float,
    sh_degree: int | None,
    packed: bool,
    backgrounds: Tensor | None,  # [C, D]
    render_mode: RenderMode,
    absgrad: bool,
    rasterize_mode: RasterizeMode,
    camera_model: CameraModel,
    covars: Tensor | None,  # [N, 3, 3]
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Render checked input; see ``sdi_gs.rasterize.rasterization``."""
    num_cameras, num_gaussians = len(viewmats), len(means)
    view = _View(
        width=width,
        height=height,
        near_plane=near_plane,
        far_plane=far_plane,
        radius_clip=radius_clip,
        eps2d=eps2d,
        antialiased=rasterize_mode == "antialiased",
        ortho=camera_model == "ortho",
    )
    if covars is not None:
        # As in gsplat, the upper triangle is what counts and what gets a gradient.
        quats = scales = None
        covars = covars[:, [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]]
    means2d, depths, conics, compensations, radii, tiles_per_gauss = _Project.apply(
        means, quats, scales, covars, opacities, viewmats, Ks, view
    )
    splat_opacities = opacities[None].expand(num_cameras, num_gaussians)
    if view.antialiased:
        splat_opacities = splat_opacities * compensations
    splat_colors = _colors_per_camera(means, colors, viewmats, sh_degree)
    camera_ids = gaussian_ids = batch_ids = None
    image_starts = np.arange(num_cameras + 1) * num_gaussians
    if packed:
        camera_ids, gaussian_ids = torch.where(radii[..., 0] > 0)
        batch_ids = torch.zeros_like(camera_ids)
        chosen = (camera_ids, gaussian_ids)
        means2d, depths, conics, radii = means2d[chosen], depths[chosen], conics[chosen], radii[chosen]
        splat_opacities, splat_colors = splat_opacities[chosen], splat_colors[chosen]
        tiles_per_gauss = tiles_per_gauss[chosen]
        image_starts = np.concatenate([[0], np.cumsum(torch.bincount(camera_ids, minlength=num_cameras).numpy())])
    meta: dict[str, Any] = {
        "batch_ids": batch_ids,
        "camera_ids": camera_ids,
        "gaussian_ids": gaussian_ids,
        "radii": radii,
        "means2d": means2d,
        "depths": depths,
        "conics": conics,
        "opacities": splat_opacities,
    }
    background = torch.zeros(num_cameras, splat_colors.shape[-1]) if backgrounds is None else backgrounds
    splat_colors, background = _choose_channels(render_mode, splat_colors, depths, background)
    if absgrad and splat_colors.shape[-1] > MAX_CHANNELS:
        raise NotImplementedError(f"absgrad on CPU goes with at most {MAX_CHANNELS} channels")
    flat_means2d = means2d.reshape(-1, 2)
    tiles = _bin(
        flat_means2d,
        radii.reshape(-1, 2),
        depths.reshape(-1),
        tiles_per_gauss.reshape(-1),
        image_starts,
        view.grid,
    )
    passes = [
        _Composite.apply(
            flat_means2d,
            conics.reshape(-1, 3),
            splat_opacities.reshape(-1),
            splat_colors[..., first : first + MAX_CHANNELS].flatten(end_dim=-2),
            background[:, first : first + MAX_CHANNELS],
            tiles,
            view,
            means2d if absgrad else None,
        )
        for first in range(0, splat_colors.shape[-1], MAX_CHANNELS)
    ]
    alphas = passes[0][1]
    rendered = passes[0][0] if len(passes) == 1 else torch.cat([colors for colors, _ in passes], dim=-1)
    if render_mode in ("ED", "RGB+ED"):
        rendered = torch.cat([rendered[..., :-1], rendered[..., -1:] / alphas.clamp_min(1e-10)], dim=-1)
    tiles_x, tiles_y = view.grid
    meta |= {
        "tile_width": tiles_x,
        "tile_height": tiles_y,
        "tiles_per_gauss": tiles_per_gauss,
        "flatten_ids": torch.from_numpy(tiles.flatten_ids),
        "isect_offsets": torch.from_numpy(
            tiles.tile_starts[:-1].astype(np.int32).reshape(num_cameras, tiles_y, tiles_x)
        ),
        "width": width,
        "height": height,
        "tile_size": projection.TILE_SIZE,
        "n_batches": 1,
        "n_cameras": num_cameras,
    }
    return rendered, alphas, meta
