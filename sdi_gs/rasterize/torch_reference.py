"""Reference rasteriser in torch operations and autograd: slow, any dtype.

The tests use it as their oracle (float64, every Gaussian against every pixel), the benchmark as its baseline (float32,
16x16 tiles). It shares no code with the kernels: the projection is gsplat's torch version, and the culling rule is
written again from gsplat 1.5.3 ``csrc/ProjectionEWA3DGSFused.cu``.

Letters: C cameras, N Gaussians, n those of a tile, P pixels of a tile, D colour channels, K harmonic bases, H W pixels.
X is D, 1 or D + 1 by render mode.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from gsplat.cuda import _torch_impl
from torch import Tensor

from sdi_gs.rasterize import RenderMode
from sdi_gs.rasterize.spherical_harmonics import harmonic_colors

_ALPHA_THRESHOLD = 1.0 / 255.0
_MAX_ALPHA = 0.999
_TRANSMITTANCE_THRESHOLD = 1e-4


def render(
    *,
    means: Tensor,  # [N, 3]
    quats: Tensor | None,  # [N, 4]
    scales: Tensor | None,  # [N, 3]
    opacities: Tensor,  # [N]
    colors: Tensor,  # [(C,) N, D] or [(C,) N, K, 3]
    viewmats: Tensor,  # [C, 4, 4]
    Ks: Tensor,  # [C, 3, 3]
    width: int,
    height: int,
    sh_degree: int | None = None,
    backgrounds: Tensor | None = None,  # [C, D]
    render_mode: RenderMode = "RGB",
    tile_size: int | None = None,
    **projection: Any,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return colours [C, H, W, X], alphas [C, H, W, 1] and the splats of ``project``.

    ``projection`` holds ``project``'s options. Harmonics are evaluated by ``spherical_harmonics``, which is tested
    separately.
    """
    splats = project(means, quats, scales, opacities, viewmats, Ks, width, height, **projection)
    num_cameras = len(viewmats)
    if sh_degree is not None:
        directions = means - torch.linalg.inv(viewmats)[:, None, :3, 3]
        colors = (harmonic_colors(sh_degree, directions, colors) + 0.5).clamp_min(0.0)
    colors = colors.expand(num_cameras, -1, -1)
    background = colors.new_zeros(num_cameras, colors.shape[-1]) if backgrounds is None else backgrounds.to(colors)
    if render_mode != "RGB":
        keep = colors.shape[-1] if "RGB" in render_mode else 0
        colors = torch.cat([colors[..., :keep], splats["depths"][..., None]], dim=-1)
        background = torch.cat([background[..., :keep], background.new_zeros(num_cameras, 1)], dim=-1)
    rendered, alphas = composite(splats, colors, background, width, height, tile_size=tile_size)
    if render_mode.endswith("ED"):
        rendered = torch.cat([rendered[..., :-1], rendered[..., -1:] / alphas.clamp_min(1e-10)], dim=-1)
    return rendered, alphas, splats


def project(
    means: Tensor,  # [N, 3]
    quats: Tensor | None,  # [N, 4]
    scales: Tensor | None,  # [N, 3]
    opacities: Tensor,  # [N]
    viewmats: Tensor,  # [C, 4, 4]
    Ks: Tensor,  # [C, 3, 3]
    width: int,
    height: int,
    *,
    eps2d: float = 0.3,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
    antialiased: bool = False,
    camera_model: Literal["pinhole", "ortho"] = "pinhole",
    covars: Tensor | None = None,  # [N, 3, 3] instead of quats and scales
) -> dict[str, Tensor]:
    """Return means2d [C, N, 2], depths [C, N], conics [C, N, 3], compensated opacities [C, N] and radii [C, N, 2].

    Radii are 0 for Gaussians that gsplat's CUDA code culls; their other values are undefined.
    """
    if covars is None:
        assert quats is not None and scales is not None
        covars, _ = _torch_impl._quat_scale_to_covar_preci(quats, scales, True, False)
    assert covars is not None
    _, means2d, depths, conics, compensations = _torch_impl._fully_fused_projection(
        means,
        covars,
        viewmats,
        Ks,
        width,
        height,
        eps2d,
        near_plane,
        far_plane,
        calc_compensations=antialiased,
        camera_model=camera_model,
    )
    seen_opacities = opacities[None].expand_as(depths)
    if compensations is not None:
        seen_opacities = seen_opacities * compensations
    with torch.no_grad():
        determinant = 1.0 / (conics[..., 0] * conics[..., 2] - conics[..., 1] ** 2)
        variances = torch.stack([conics[..., 2], conics[..., 0]], dim=-1) * determinant[..., None]
        extent = (2.0 * (seen_opacities / _ALPHA_THRESHOLD).clamp_min(1.0).log()).sqrt().clamp_max(3.33)
        radii = (extent[..., None] * variances.sqrt()).ceil()
        size = torch.tensor([width, height], dtype=means2d.dtype)
        visible = (depths >= near_plane) & (depths <= far_plane) & (seen_opacities >= _ALPHA_THRESHOLD)
        visible &= (radii > radius_clip).any(dim=-1)
        visible &= ((means2d + radii > 0) & (means2d - radii < size)).all(dim=-1)
        radii = torch.where(visible[..., None], radii, 0.0).int()
    return {"means2d": means2d, "depths": depths, "conics": conics, "opacities": seen_opacities, "radii": radii}


def composite(
    splats: dict[str, Tensor],  # of ``project``
    colors: Tensor,  # [C, N, D]
    backgrounds: Tensor,  # [C, D]
    width: int,
    height: int,
    *,
    tile_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return colours [C, H, W, D] and alphas [C, H, W, 1]; without ``tile_size`` the whole image is one tile."""
    tile_width, tile_height = (width, height) if tile_size is None else (tile_size, tile_size)
    images = []
    for camera in range(len(backgrounds)):
        view = {name: value[camera] for name, value in splats.items()}
        by_depth = view["depths"].detach().argsort(stable=True)
        by_depth = by_depth[(view["radii"][by_depth] > 0).all(dim=-1)]
        view = {name: value[by_depth] for name, value in view.items()}
        low, high = (view["means2d"].detach() + sign * view["radii"] for sign in (-1, 1))
        bands = []
        for top in range(0, height, tile_height):
            bottom = min(top + tile_height, height)
            tiles = []
            for left in range(0, width, tile_width):
                right = min(left + tile_width, width)
                touching = (low[:, 0] < right) & (high[:, 0] > left) & (low[:, 1] < bottom) & (high[:, 1] > top)
                chosen = touching.nonzero()[:, 0]
                tile = _composite_tile(
                    {name: value[chosen] for name, value in view.items()},
                    colors[camera, by_depth[chosen]],
                    backgrounds[camera],
                    (left, right, top, bottom),
                )
                tiles.append(tile.reshape(bottom - top, right - left, -1))
            bands.append(torch.cat(tiles, dim=1))
        images.append(torch.cat(bands))
    image = torch.stack(images)
    return image[..., :-1], image[..., -1:]


def _composite_tile(
    view: dict[str, Tensor],  # [n, ...]
    colors: Tensor,  # [n, D]
    background: Tensor,  # [D]
    box: tuple[int, int, int, int],  # left, right, top, bottom
) -> Tensor:  # [P, D + 1] colour and alpha
    left, right, top, bottom = box
    y, x = torch.meshgrid(
        torch.arange(top, bottom, dtype=colors.dtype) + 0.5,
        torch.arange(left, right, dtype=colors.dtype) + 0.5,
        indexing="ij",
    )
    dx = x.reshape(-1, 1) - view["means2d"][:, 0]  # [P, n]
    dy = y.reshape(-1, 1) - view["means2d"][:, 1]
    a, b, c = view["conics"].unbind(dim=-1)
    sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
    alpha = (view["opacities"] * torch.exp(-sigma)).clamp_max(_MAX_ALPHA)
    alpha = torch.where((sigma >= 0) & (alpha >= _ALPHA_THRESHOLD), alpha, 0.0)
    after = torch.cumprod(1.0 - alpha, dim=1)
    before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], dim=1)
    # Transmittance never grows, so the composited Gaussians are those with enough transmittance left after them.
    weights = torch.where(after > _TRANSMITTANCE_THRESHOLD, alpha * before, 0.0)
    opacity = weights.sum(dim=1, keepdim=True)
    return torch.cat([weights @ colors + (1.0 - opacity) * background, opacity], dim=1)
