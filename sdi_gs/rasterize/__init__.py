"""Rendering of 3D Gaussians with gsplat's call: gsplat itself for CUDA tensors, numba kernels for CPU tensors."""

from __future__ import annotations

from typing import Any

from gsplat import RollingShutterType
from torch import Tensor


def rasterization(
    means: Tensor,  # [N, 3]
    quats: Tensor,  # [N, 4]
    scales: Tensor,  # [N, 3]
    opacities: Tensor,  # [N]
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
    eps2d: float = 0.3,
    sh_degree: int | None = None,
    packed: bool = True,
    tile_size: int = 16,
    backgrounds: Tensor | None = None,
    render_mode: Any = "RGB",
    sparse_grad: bool = False,
    absgrad: bool = False,
    rasterize_mode: Any = "classic",
    channel_chunk: int = 32,
    distributed: bool = False,
    camera_model: Any = "pinhole",
    segmented: bool = False,
    covars: Tensor | None = None,
    with_ut: bool = False,
    with_eval3d: bool = False,
    radial_coeffs: Tensor | None = None,
    tangential_coeffs: Tensor | None = None,
    thin_prism_coeffs: Tensor | None = None,
    ftheta_coeffs: Any = None,
    rolling_shutter: RollingShutterType = RollingShutterType.GLOBAL,
    viewmats_rs: Tensor | None = None,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Draft."""
    from sdi_gs.rasterize.numba_backend import rasterize

    return rasterize(
        means, quats, scales, opacities, colors, viewmats, Ks, width=width, height=height, near_plane=near_plane,
        far_plane=far_plane, radius_clip=radius_clip, eps2d=eps2d, sh_degree=sh_degree, packed=packed,
        backgrounds=backgrounds, render_mode=render_mode, absgrad=absgrad, rasterize_mode=rasterize_mode,
    )
