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
from sdi_gs.rasterize.checks import check_request
from sdi_gs.rasterize.kernels import compositing
from sdi_gs.rasterize.kernels.projection import TILE_SIZE
from sdi_gs.rasterize.numba_compositing import Composite, Drawing, Tiles, bin_tiles
from sdi_gs.rasterize.numba_projection import Items, Project, as_arrays, project
from sdi_gs.rasterize.request import RenderMode, RenderRequest
from sdi_gs.rasterize.spherical_harmonics import harmonic_colors

MAX_CHANNELS = 32
"""Channels composited in one pass, gsplat's ``channel_chunk``; a kernel is compiled per number of channels."""

_log = logging.getLogger(__name__)


def _colors_per_camera(request: RenderRequest, degree: int) -> Tensor:  # [C, N, 3]
    """Return each Gaussian's colour for each camera: its harmonics of a degree in the view's direction."""
    viewmats, colors = request.viewmats, request.colors
    per_camera = colors.expand(len(viewmats), *colors.shape[-3:])
    directions = request.means - torch.inverse(viewmats)[:, None, :3, 3]
    return (harmonic_colors(degree, directions, per_camera) + 0.5).clamp_min(0.0)


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
    """Check and render a request; see ``sdi_gs.rasterize.rasterization``."""
    arrays = check_request(request)
    # Where they are kept nowhere, that is reported when the first is compiled.
    if not is_compiled(compositing.composite) and is_kept(compositing.composite):
        _log.warning("compiling CPU kernels (first use only, 10 to 20 s)")
    splats = _project(request, arrays)
    if request.packed:
        splats = splats.visible()
    grid = -(-request.width // TILE_SIZE), -(-request.height // TILE_SIZE)
    tiles = bin_tiles(splats.items, grid)
    rendered, alphas = _composite(request, splats, tiles)
    if request.render_mode in ("ED", "RGB+ED"):
        rendered = torch.cat([rendered[..., :-1], rendered[..., -1:] / alphas.clamp_min(1e-10)], dim=-1)
    return rendered, alphas, _meta(request, splats, tiles)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Splats:
    """Gaussians on the image planes: of every camera, or, packed, the M visible (camera, Gaussian) pairs alone."""

    means2d: Tensor  # [C, N, 2] or [M, 2]
    depths: Tensor  # [C, N] or [M]
    conics: Tensor  # [C, N, 3] or [M, 3]
    radii: Tensor  # [C, N, 2] or [M, 2]
    opacities: Tensor  # [(C,) N] or [M]
    colors: Tensor  # [(C,) N, D] or [M, D]
    tiles_per_gauss: Tensor  # [C, N] or [M]
    items: Items
    """The same as arrays."""
    camera_ids: Tensor | None = None  # [M]
    gaussian_ids: Tensor | None = None  # [M]

    def visible(self) -> _Splats:
        """Return the visible pairs alone."""
        camera_ids, gaussian_ids = torch.where(self.radii[..., 0] > 0)
        chosen, shape = (camera_ids, gaussian_ids), self.depths.shape
        counts = torch.bincount(camera_ids, minlength=len(self.radii)).numpy()
        items = (self.means2d, self.depths, self.conics, self.radii, self.tiles_per_gauss)
        means2d, depths, conics, radii, tiles_per_gauss = (values[chosen] for values in items)
        arrays = [values[None] for values in as_arrays(means2d, depths, conics, radii, tiles_per_gauss)]
        return _Splats(
            means2d=means2d,
            depths=depths,
            conics=conics,
            radii=radii,
            opacities=self.opacities.expand(shape)[chosen],
            colors=self.colors.expand(*shape, -1)[chosen],
            tiles_per_gauss=tiles_per_gauss,
            items=Items(
                means2d=arrays[0],
                depths=arrays[1],
                conics=arrays[2],
                radii=arrays[3],
                tiles_per_gauss=arrays[4],
                image_starts=np.concatenate([[0], np.cumsum(counts)]),
            ),
            camera_ids=camera_ids,
            gaussian_ids=gaussian_ids,
        )


def _project(request: RenderRequest, arrays: dict[str, np.ndarray]) -> _Splats:
    """Project all Gaussians into all cameras."""
    quats, scales, covars = request.quats, request.scales, request.covars
    if covars is not None:
        # As in gsplat, only the upper triangle is read and gets a gradient.
        quats = scales = None
        covars = covars[:, [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]]
    projected = project(request, arrays, covars)
    radii = torch.from_numpy(projected.items.radii)
    means2d, depths, conics, *compensations = Project.apply(
        request.means, quats, scales, covars, request.viewmats, request.Ks, radii, projected
    )
    opacities, colors = request.opacities, request.colors
    return _Splats(
        means2d=means2d,
        depths=depths,
        conics=conics,
        radii=radii,
        opacities=opacities * compensations[0] if request.antialiased else opacities,
        colors=colors if request.sh_degree is None else _colors_per_camera(request, request.sh_degree),
        tiles_per_gauss=torch.from_numpy(projected.items.tiles_per_gauss),
        items=projected.items,
    )


def _composite(
    request: RenderRequest, splats: _Splats, tiles: Tiles
) -> tuple[Tensor, Tensor]:  # [C, H, W, X], [C, H, W, 1]
    """Composite the channels of the render mode, ``MAX_CHANNELS`` at a time.

    Raises NotImplementedError for absolute gradients over several passes.
    """
    channels, background = splats.colors, request.backgrounds
    if request.render_mode != "RGB":
        channels, background = _choose_channels(request.render_mode, channels, splats.depths, background)
    drawing = Drawing(
        request=request,
        items=splats.items,
        tiles=tiles,
        absgrad_owner=splats.means2d if request.absgrad else None,
    )
    splat = (splats.means2d, splats.conics, splats.opacities)
    if channels.shape[-1] <= MAX_CHANNELS:
        return Composite.apply(*splat, channels, background, drawing)
    if request.absgrad:
        raise NotImplementedError(f"absgrad on CPU goes with at most {MAX_CHANNELS} channels")
    passes = []
    for first in range(0, channels.shape[-1], MAX_CHANNELS):
        chosen = slice(first, first + MAX_CHANNELS)
        behind = None if background is None else background[:, chosen]
        passes.append(Composite.apply(*splat, channels[..., chosen], behind, drawing))
    return torch.cat([colors for colors, _ in passes], dim=-1), passes[0][1]


def _meta(request: RenderRequest, splats: _Splats, tiles: Tiles) -> dict[str, Any]:
    """Return gsplat's meta dict."""
    tiles_x, tiles_y = tiles.grid
    num_cameras = request.viewmats.shape[0]
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
        "tile_size": TILE_SIZE,
        "n_batches": 1,
        "n_cameras": num_cameras,
    }
