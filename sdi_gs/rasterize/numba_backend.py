"""The CPU backend: render checked input with the numba kernels and fill gsplat's meta dict.

Two autograd functions, as in gsplat: ``Project`` (3D to image plane) and ``Composite`` (image plane to pixels), so
that ``meta["means2d"]`` is a tensor of the graph and ``retain_grad()`` works on it.

Letters: C cameras, N Gaussians, D colour channels, K harmonic bases, H W pixels, M items (a Gaussian in a camera).
"""

from __future__ import annotations

import logging
from typing import Any, assert_never

import numpy as np
import torch
from torch import Tensor

from sdi_gs.rasterize import CameraModel, RasterizeMode, RenderMode
from sdi_gs.rasterize.kernels import compositing, projection
from sdi_gs.rasterize.kernels.jit import is_compiled
from sdi_gs.rasterize.numba_compositing import Composite, bin_tiles
from sdi_gs.rasterize.numba_projection import Project, View
from sdi_gs.rasterize.spherical_harmonics import harmonic_colors

MAX_CHANNELS = 32
"""Channels composited in one pass, gsplat's ``channel_chunk``; a kernel is compiled per number of channels."""

_log = logging.getLogger(__name__)


def _colors_per_camera(
    means: Tensor,  # [N, 3]
    colors: Tensor,  # [(C,) N, D] or [(C,) N, K, 3]
    viewmats: Tensor,  # [C, 4, 4]
    sh_degree: int | None,
) -> Tensor:  # [C, N, D]
    """Return each Gaussian's colour in each camera, evaluating harmonics in the direction of view."""
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
    """Return the channels to composite and their background; depth comes last and has background 0."""
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
    if not is_compiled(compositing.composite):
        _log.warning("compiling CPU kernels (first use only, 10 to 20 s)")
    num_cameras, num_gaussians = len(viewmats), len(means)
    view = View(
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
        # As in gsplat, only the upper triangle is read and gets a gradient.
        quats = scales = None
        covars = covars[:, [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]]
    means2d, depths, conics, compensations, radii, tiles_per_gauss = Project.apply(
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
    tiles = bin_tiles(
        flat_means2d,
        radii.reshape(-1, 2),
        depths.reshape(-1),
        tiles_per_gauss.reshape(-1),
        image_starts,
        view.grid,
    )
    passes = [
        Composite.apply(
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
