"""The CPU backend: render checked input with the numba kernels and fill gsplat's meta dict.

Two autograd functions, as in gsplat: ``Project`` (3D to image plane) and ``Composite`` (image plane to pixels), so
that ``meta["means2d"]`` is a tensor of the graph and ``retain_grad()`` works on it.

Letters: C cameras, N Gaussians, D colour channels, K harmonic bases, H W pixels, M items (a Gaussian in a camera).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, assert_never

import numpy as np
import torch
from torch import Tensor

from sdi_gs.files.kernel_cache import is_compiled, is_kept
from sdi_gs.rasterize.kernels import compositing, projection
from sdi_gs.rasterize.numba_compositing import Composite, Tiles, bin_tiles
from sdi_gs.rasterize.numba_projection import Project, View
from sdi_gs.rasterize.request import RenderMode, RenderRequest
from sdi_gs.rasterize.spherical_harmonics import harmonic_colors

MAX_CHANNELS = 32
"""Channels composited in one pass, gsplat's ``channel_chunk``; a kernel is compiled per number of channels."""

_log = logging.getLogger(__name__)


def _colors_per_camera(
    means: Tensor,  # [N, 3]
    colors: Tensor,  # [(C,) N, D] or [(C,) N, K, 3]
    viewmats: Tensor,  # [C, 4, 4]
    sh_degree: int | None,
) -> Tensor:  # [(C,) N, D]
    """Return each Gaussian's colour, for each camera if it has harmonics, evaluated in the view's direction."""
    if sh_degree is None:
        return colors
    per_camera = colors.expand(len(viewmats), *colors.shape[-3:])
    directions = means - torch.inverse(viewmats)[:, None, :3, 3]
    return (harmonic_colors(sh_degree, directions, per_camera) + 0.5).clamp_min(0.0)


def _choose_channels(
    render_mode: RenderMode,
    colors: Tensor,  # [..., D]
    depths: Tensor,  # [...]
    background: Tensor | None,  # [C, D]
) -> tuple[Tensor, Tensor | None]:
    """Return the channels to composite and their background; depth comes last and has background 0."""
    match render_mode:
        case "RGB":
            return colors, background
        case "D" | "ED":
            return depths[..., None], None
        case "RGB+D" | "RGB+ED":
            every = torch.cat([colors.expand(*depths.shape, -1), depths[..., None]], dim=-1)
            return every, None if background is None else torch.nn.functional.pad(background, (0, 1))
        case other:
            assert_never(other)


def rasterize(request: RenderRequest) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Render a checked request; see ``sdi_gs.rasterize.rasterization``."""
    # Where they are kept nowhere, that is reported when the first is compiled.
    if not is_compiled(compositing.composite) and is_kept(compositing.composite):
        _log.warning("compiling CPU kernels (first use only, 10 to 20 s)")
    view = View(
        width=request.width,
        height=request.height,
        near_plane=request.near_plane,
        far_plane=request.far_plane,
        radius_clip=request.radius_clip,
        eps2d=request.eps2d,
        antialiased=request.antialiased,
        ortho=request.camera_model == "ortho",
    )
    splats = _project(request, view)
    if request.packed:
        splats = splats.visible()
    tiles = bin_tiles(
        splats.means2d.reshape(-1, 2),
        splats.radii.reshape(-1, 2),
        splats.depths.reshape(-1),
        splats.tiles_per_gauss.reshape(-1),
        splats.image_starts,
        view.grid,
    )
    rendered, alphas = _composite(request, view, splats, tiles)
    if request.render_mode in ("ED", "RGB+ED"):
        rendered = torch.cat([rendered[..., :-1], rendered[..., -1:] / alphas.clamp_min(1e-10)], dim=-1)
    return rendered, alphas, _meta(request, view, splats, tiles)


@dataclass(frozen=True, kw_only=True)
class _Splats:
    """Gaussians on the image planes: of every camera, or, packed, the M visible (camera, Gaussian) pairs alone."""

    means2d: Tensor  # [C, N, 2] or [M, 2]
    depths: Tensor  # [C, N] or [M]
    conics: Tensor  # [C, N, 3] or [M, 3]
    radii: Tensor  # [C, N, 2] or [M, 2]
    opacities: Tensor  # [(C,) N] or [M]
    colors: Tensor  # [(C,) N, D] or [M, D]
    tiles_per_gauss: Tensor  # [C, N] or [M]
    image_starts: np.ndarray  # [C + 1] first row of each camera
    camera_ids: Tensor | None = None  # [M]
    gaussian_ids: Tensor | None = None  # [M]

    def visible(self) -> _Splats:
        """Return the visible pairs alone."""
        camera_ids, gaussian_ids = torch.where(self.radii[..., 0] > 0)
        chosen, shape = (camera_ids, gaussian_ids), self.depths.shape
        counts = torch.bincount(camera_ids, minlength=len(self.radii)).numpy()
        return _Splats(
            means2d=self.means2d[chosen],
            depths=self.depths[chosen],
            conics=self.conics[chosen],
            radii=self.radii[chosen],
            opacities=self.opacities.expand(shape)[chosen],
            colors=self.colors.expand(*shape, -1)[chosen],
            tiles_per_gauss=self.tiles_per_gauss[chosen],
            image_starts=np.concatenate([[0], np.cumsum(counts)]),
            camera_ids=camera_ids,
            gaussian_ids=gaussian_ids,
        )


def _project(request: RenderRequest, view: View) -> _Splats:
    """Project all Gaussians into all cameras."""
    quats, scales, covars = request.quats, request.scales, request.covars
    if covars is not None:
        # As in gsplat, only the upper triangle is read and gets a gradient.
        quats = scales = None
        covars = covars[:, [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]]
    means2d, depths, conics, compensations, radii, tiles_per_gauss = Project.apply(
        request.means, quats, scales, covars, request.opacities, request.viewmats, request.Ks, view
    )
    num_cameras, num_gaussians = len(request.viewmats), len(request.means)
    opacities = request.opacities
    return _Splats(
        means2d=means2d,
        depths=depths,
        conics=conics,
        radii=radii,
        opacities=opacities * compensations if view.antialiased else opacities,
        colors=_colors_per_camera(request.means, request.colors, request.viewmats, request.sh_degree),
        tiles_per_gauss=tiles_per_gauss,
        image_starts=np.arange(num_cameras + 1) * num_gaussians,
    )


def _composite(
    request: RenderRequest, view: View, splats: _Splats, tiles: Tiles
) -> tuple[Tensor, Tensor]:  # [C, H, W, X], [C, H, W, 1]
    """Composite the channels of the render mode, ``MAX_CHANNELS`` at a time.

    Raises NotImplementedError for absolute gradients over several passes.
    """
    background = request.backgrounds
    channels, background = _choose_channels(request.render_mode, splats.colors, splats.depths, background)
    if request.absgrad and channels.shape[-1] > MAX_CHANNELS:
        raise NotImplementedError(f"absgrad on CPU goes with at most {MAX_CHANNELS} channels")
    passes = [
        Composite.apply(
            splats.means2d,
            splats.conics,
            splats.opacities,
            channels if channels.shape[-1] <= MAX_CHANNELS else channels[..., first : first + MAX_CHANNELS],
            background if background is None else background[:, first : first + MAX_CHANNELS],
            tiles,
            view,
            splats.means2d if request.absgrad else None,
        )
        for first in range(0, channels.shape[-1], MAX_CHANNELS)
    ]
    alphas = passes[0][1]
    return (passes[0][0] if len(passes) == 1 else torch.cat([colors for colors, _ in passes], dim=-1)), alphas


def _meta(request: RenderRequest, view: View, splats: _Splats, tiles: Tiles) -> dict[str, Any]:
    """Return gsplat's meta dict."""
    tiles_x, tiles_y = view.grid
    num_cameras = len(request.viewmats)
    offsets = tiles.tile_starts[:-1].astype(np.int32).reshape(num_cameras, tiles_y, tiles_x)
    return {
        "batch_ids": None if splats.camera_ids is None else torch.zeros_like(splats.camera_ids),
        "camera_ids": splats.camera_ids,
        "gaussian_ids": splats.gaussian_ids,
        "radii": splats.radii,
        "means2d": splats.means2d,
        "depths": splats.depths,
        "conics": splats.conics,
        "opacities": splats.opacities.expand(splats.depths.shape),
        "tile_width": tiles_x,
        "tile_height": tiles_y,
        "tiles_per_gauss": splats.tiles_per_gauss,
        "flatten_ids": torch.from_numpy(tiles.flatten_ids),
        "isect_offsets": torch.from_numpy(offsets),
        "width": request.width,
        "height": request.height,
        "tile_size": projection.TILE_SIZE,
        "n_batches": 1,
        "n_cameras": num_cameras,
    }
