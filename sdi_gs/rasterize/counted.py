"""Allocate the buffers of gsplat's CUDA code for a render, on tensors without data (torch's meta device).

Nothing is computed. Every buffer of gsplat 1.5.3's ``packed=False`` path is allocated and kept as long as gsplat keeps
it, so that memory can be counted on a machine without a card. The number of tiles per Gaussian depends on the scene;
``tiles_per_gaussian`` estimates it.

Letters: C cameras, N Gaussians, D colour channels, K harmonic bases, H W pixels, M pairs of a tile and a Gaussian.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sdi_gs.rasterize.request import RenderRequest

TILE_SIZE = 16
"""Pixels along a side of a tile."""


def tiles_per_gaussian(num_gaussians: int, image_size: int) -> float:
    """Return the mean number of tiles per Gaussian in a ball of Gaussians that fills half the picture's height.

    A box of e pixels touches (1 + e / 16)^2 tiles. The extent e is 0.0316 of the longer side for 20 000 Gaussians and
    falls with their spacing, plus 1.5 pixels of blur. Fitted to the CPU rasteriser's counts for the SD preset's
    start: within 6 % from 20 000 to 1 000 000 Gaussians at 256 to 768 pixels.
    """
    extent = 0.0316 * image_size * (20_000 / max(num_gaussians, 1)) ** (1.0 / 3.0) + 1.5
    return (1.0 + extent / TILE_SIZE) ** 2


def rasterize(request: RenderRequest) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Return colours [C, H, W, X], alphas [C, H, W, 1] and the meta dict, without data; see ``rasterization``.

    Raises:
        NotImplementedError: ``packed`` is set; its buffers are not modelled, since no preset trains with it.
    """
    if request.packed:
        raise NotImplementedError("packed=True is not counted; leave it at False on the meta device")
    assert request.quats is not None and request.scales is not None
    means, colors, viewmats, render_mode = request.means, request.colors, request.viewmats, request.render_mode
    width, height = request.width, request.height
    pairs = (len(viewmats), len(means))
    means2d, depths, conics, compensations, radii = _Project.apply(
        means, request.quats, request.scales, len(viewmats), request.antialiased
    )
    seen = request.opacities.expand(pairs)
    if request.antialiased:
        seen = seen * compensations
    if request.sh_degree is None:
        shown = colors.expand(*pairs, -1)
    else:
        directions = means - viewmats[:, None, :3, 3]
        shown = torch.clamp_min(_Harmonics.apply(directions, colors.expand(*pairs, -1, 3).contiguous()) + 0.5, 0.0)
    if render_mode in ("RGB+D", "RGB+ED"):
        shown = torch.cat([shown, depths[..., None]], dim=-1)
    elif render_mode in ("D", "ED"):
        shown = depths[..., None]
    tiles = _tiles(pairs, width, height, means.device)
    rendered, alphas = _Composite.apply(
        means2d.contiguous(),
        conics.contiguous(),
        shown.contiguous(),
        seen.contiguous(),
        tiles.isect_offsets,
        tiles.flatten_ids,
        width,
        height,
    )
    if render_mode in ("ED", "RGB+ED"):
        rendered = torch.cat([rendered[..., :-1], rendered[..., -1:] / alphas.clamp_min(1e-10)], dim=-1)
    meta: dict[str, Any] = {
        "batch_ids": None,
        "camera_ids": None,
        "gaussian_ids": None,
        "radii": radii,
        "means2d": means2d,
        "depths": depths,
        "conics": conics,
        "opacities": seen,
        **tiles._asdict(),
        "tile_width": math.ceil(width / TILE_SIZE),
        "tile_height": math.ceil(height / TILE_SIZE),
        "tile_size": TILE_SIZE,
        "width": width,
        "height": height,
        "n_batches": 1,
        "n_cameras": len(viewmats),
    }
    return rendered, alphas, meta


class _Tiles(NamedTuple):
    """Buffers of sorting that gsplat keeps in its meta dict."""

    tiles_per_gauss: Tensor  # [C, N]
    isect_ids: Tensor  # [M]
    flatten_ids: Tensor  # [M]
    isect_offsets: Tensor  # [C, tiles down, tiles across]


def _tiles(pairs: tuple[int, int], width: int, height: int, device: torch.device) -> _Tiles:
    """Allocate the buffers of sorting: counts, their running sum, and two copies each of the keys and values."""
    num_isects = round(pairs[0] * pairs[1] * tiles_per_gaussian(pairs[1], max(width, height)))
    counts = torch.empty(pairs, dtype=torch.int32, device=device)
    sums = torch.empty(pairs[0] * pairs[1], dtype=torch.int64, device=device)
    keys = [torch.empty(num_isects, dtype=torch.int64, device=device) for _ in range(2)]
    values = [torch.empty(num_isects, dtype=torch.int32, device=device) for _ in range(2)]
    grid = (pairs[0], math.ceil(height / TILE_SIZE), math.ceil(width / TILE_SIZE))
    offsets = torch.empty(grid, dtype=torch.int32, device=device)
    del sums
    return _Tiles(tiles_per_gauss=counts, isect_ids=keys[1], flatten_ids=values[1], isect_offsets=offsets)


class _Project(torch.autograd.Function):
    """means, quats, scales -> means2d, depths, conics, compensations, radii."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        means: Tensor,  # [N, 3]
        quats: Tensor,  # [N, 4]
        scales: Tensor,  # [N, 3]
        num_cameras: int,
        antialiased: bool,
    ) -> tuple[Tensor | None, ...]:
        pairs = (num_cameras, len(means))
        radii = torch.empty((*pairs, 2), dtype=torch.int32, device=means.device)
        means2d, depths, conics = means.new_empty(*pairs, 2), means.new_empty(pairs), means.new_empty(*pairs, 3)
        compensations = means.new_empty(pairs) if antialiased else None
        ctx.save_for_backward(means, quats, scales, radii, conics, compensations)
        ctx.mark_non_differentiable(radii)
        return means2d, depths, conics, compensations, radii

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        means, quats, scales, *_ = ctx.saved_tensors
        return torch.empty_like(means), torch.empty_like(quats), torch.empty_like(scales), None, None


class _Harmonics(torch.autograd.Function):
    """Directions, coefficients -> colours."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        directions: Tensor,  # [C, N, 3]
        coefficients: Tensor,  # [C, N, K, 3]
    ) -> Tensor:  # [C, N, 3]
        ctx.save_for_backward(directions, coefficients)
        return torch.empty_like(directions)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        directions, coefficients = ctx.saved_tensors
        return torch.empty_like(directions), torch.empty_like(coefficients)


class _Composite(torch.autograd.Function):
    """means2d, conics, colours, opacities -> pixel colours and alphas."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        means2d: Tensor,  # [C, N, 2]
        conics: Tensor,  # [C, N, 3]
        colors: Tensor,  # [C, N, D]
        opacities: Tensor,  # [C, N]
        isect_offsets: Tensor,  # [C, tiles down, tiles across]
        flatten_ids: Tensor,  # [M]
        width: int,
        height: int,
    ) -> tuple[Tensor, Tensor]:
        picture = (len(means2d), height, width)
        rendered, alphas = colors.new_empty(*picture, colors.shape[-1]), colors.new_empty(*picture, 1)
        last_ids = torch.empty(picture, dtype=torch.int32, device=means2d.device)
        ctx.save_for_backward(means2d, conics, colors, opacities, isect_offsets, flatten_ids, alphas, last_ids)
        return rendered, alphas

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        splats = ctx.saved_tensors[:4]
        # gsplat makes both incoming gradients contiguous. They are contiguous already, so it copies nothing.
        return (*(torch.empty_like(values) for values in splats), None, None, None, None)
