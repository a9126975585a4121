"""Render 3D Gaussians with gsplat's signature: CUDA tensors by gsplat itself, CPU tensors by numba kernels.

Tensors on the meta device allocate the buffers of gsplat's CUDA code and compute nothing, to count its memory.

Letters: C cameras, N Gaussians, D colour channels, K harmonic bases, H W pixels.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from typing import Any, Literal, assert_never

import torch
from gsplat import RollingShutterType
from torch import Tensor

from sdi_gs.rasterize.request import CameraModel, RasterizeMode, RenderMode, RenderRequest

Backend = Literal["gsplat", "numba", "counted"]


def backend_for(device: torch.device | str) -> Backend:
    """Return which implementation renders tensors on a device, without loading gsplat's CUDA code.

    Raises:
        ValueError: The device is not "cpu", "cuda" or "meta" (where memory is counted and nothing is rendered).
    """
    match torch.device(device).type:
        case "cuda":
            return "gsplat"
        case "cpu":
            return "numba"
        case "meta":
            return "counted"
        case other:
            raise ValueError(f"rasterization runs on cpu or cuda tensors, got {other!r}; move them to one of the two")


def rasterization(
    means: Tensor,  # [N, 3]
    quats: Tensor | None,  # [N, 4]
    scales: Tensor | None,  # [N, 3]
    opacities: Tensor,  # [N]
    colors: Tensor,  # [(C,) N, D] or [(C,) N, K, 3]
    viewmats: Tensor,  # [C, 4, 4]
    Ks: Tensor,  # [C, 3, 3]
    width: int,
    height: int,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
    eps2d: float = 0.3,
    sh_degree: int | None = None,
    packed: bool = True,
    tile_size: int = 16,
    backgrounds: Tensor | None = None,  # [C, D]
    render_mode: RenderMode = "RGB",
    sparse_grad: bool = False,
    absgrad: bool = False,
    rasterize_mode: RasterizeMode = "classic",
    channel_chunk: int = 32,
    distributed: bool = False,
    camera_model: CameraModel = "pinhole",
    segmented: bool = False,
    covars: Tensor | None = None,  # [N, 3, 3]
    with_ut: bool = False,
    with_eval3d: bool = False,
    radial_coeffs: Tensor | None = None,
    tangential_coeffs: Tensor | None = None,
    thin_prism_coeffs: Tensor | None = None,
    ftheta_coeffs: Any = None,
    rolling_shutter: RollingShutterType = RollingShutterType.GLOBAL,
    viewmats_rs: Tensor | None = None,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Render Gaussians into C cameras with the signature, results and semantics of ``gsplat.rasterization`` 1.5.3.

    CUDA tensors are passed on to gsplat unchanged, with all its options. CPU tensors are rendered by numba kernels
    that follow gsplat's CUDA code and support the options described below; their results are bitwise the same in
    every run and for any number of threads (``torch.set_num_threads``). The first call compiles the kernels
    (seconds, cached on disk).

    Args:
        means: Centres in the world.
        quats: Rotations, wxyz, of any length. Not read, like the scales, if ``covars`` is given.
        scales: Standard deviations along the axes, scene units (after exp).
        opacities: In [0, 1] (after sigmoid).
        colors: Any D channels, or with ``sh_degree`` harmonic coefficients, rendered as max(series + 0.5, 0). One
            set for all cameras or, with a leading C, one per camera.
        viewmats: Camera from world, OpenCV axes.
        Ks: Intrinsics, pixels (ortho: pixels per scene unit). Gets no gradient.
        width: Pixels.
        height: Pixels.
        near_plane: Gaussians whose centre is nearer are not drawn, scene units.
        far_plane: Gaussians whose centre is farther are not drawn, scene units.
        radius_clip: Gaussians whose box is no larger than this are not drawn, pixels.
        eps2d: Added to both image variances, square pixels.
        sh_degree: Harmonic degree in use, 0 to 3 on CPU; (degree + 1)^2 <= K.
        packed: List the visible (camera, Gaussian) pairs in ``meta`` instead of all C x N.
        backgrounds: Colours behind everything; depth channels get 0.
        render_mode: "D" accumulates camera z, "ED" divides it by alpha; "RGB+..." appends it as the last channel.
        absgrad: Leave the sum over pixels of the absolute gradient in ``meta["means2d"].absgrad``.
        rasterize_mode: "antialiased" lowers opacity by the square root of the determinants' ratio, for eps2d's blur.
        camera_model: "pinhole" or "ortho" on CPU.
        covars: Covariances in place of quats and scales, square scene units, positive semidefinite. The upper
            triangle is read and gets the gradient.

    On CPU every other argument must keep its default.

    Returns:
        Colours [C, H, W, X], alphas [C, H, W, 1] and the meta dict with gsplat's keys, except ``isect_ids``
        (the sort keys of gsplat's CUDA code). X is D, 1 or D + 1 by render mode.

    Raises:
        NotImplementedError: On CPU, an argument that only gsplat's CUDA code supports; the message names it.
        ValueError: On CPU, a tensor of wrong shape, type or device, or with NaN or infinity; the message names it.
    """
    arguments = dict(locals())
    match backend_for(means.device):
        case "gsplat":
            import gsplat

            # A tensor on a real card has created a CUDA context. Fake tensors have not, and need no machine code.
            if torch.cuda.is_initialized():
                _prepare_gsplat(means.device)
            if packed and backgrounds is not None:
                arguments["backgrounds"] = None
                return _over_backgrounds(gsplat.rasterization(**arguments), backgrounds)
            return gsplat.rasterization(**arguments)
        case "numba":
            from sdi_gs.rasterize import numba_backend

            _refuse_gsplat_only(arguments)
            return numba_backend.rasterize(_request_of(arguments))
        case "counted":
            from sdi_gs.rasterize import counted

            return counted.rasterize(_request_of(arguments))
        case other:
            assert_never(other)


def _request_of(arguments: dict[str, Any]) -> RenderRequest:
    """Return the arguments of ``rasterization`` that are not gsplat's alone."""
    return RenderRequest(**{name: value for name, value in arguments.items() if name not in _GSPLAT_ONLY})


def _refuse_gsplat_only(arguments: dict[str, Any]) -> None:
    """Raise NotImplementedError for a value other than the default of an argument that only gsplat supports."""
    for name in _GSPLAT_ONLY:
        default = _DEFAULTS[name]
        if arguments[name] is not default and (default is None or arguments[name] != default):
            raise NotImplementedError(
                f"{name} is supported by gsplat's CUDA backend only; on CPU leave it at {default!r}"
            )


def _over_backgrounds(
    drawn: tuple[Tensor, Tensor, dict[str, Any]],
    backgrounds: Tensor,  # [C, D]
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Composite a render without background over one colour per camera.

    gsplat 1.5.3 refuses backgrounds together with ``packed``: its shape check leaves out the cameras.
    """
    colours, alphas, meta = drawn
    behind = (1.0 - alphas) * backgrounds[:, None, None, :]
    # Depth channels get no background: neither the only channel of a depth render nor the one after the colours.
    count = backgrounds.shape[-1] if colours.shape[-1] >= backgrounds.shape[-1] else 0
    return torch.cat([colours[..., :count] + behind[..., :count], colours[..., count:]], dim=-1), alphas, meta


@functools.cache
def _prepare_gsplat(device: torch.device) -> None:
    """Load gsplat's compiled code once; warn if gsplat is about to compile it."""
    from sdi_gs.rasterize.gsplat_library import use_library

    if not use_library(device):
        warnings.warn(
            "gsplat compiles its CUDA code now, which takes minutes; sdi-gs doctor --build does it ahead of time",
            UserWarning,
            stacklevel=3,
        )


_GSPLAT_ONLY = (
    "tile_size",
    "sparse_grad",
    "channel_chunk",
    "distributed",
    "segmented",
    "with_ut",
    "with_eval3d",
    "radial_coeffs",
    "tangential_coeffs",
    "thin_prism_coeffs",
    "ftheta_coeffs",
    "rolling_shutter",
    "viewmats_rs",
)
_DEFAULTS = {name: parameter.default for name, parameter in inspect.signature(rasterization).parameters.items()}
