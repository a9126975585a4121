"""Check the CPU backend's input; errors name the argument.

Letters: C cameras, N Gaussians, D colour channels, K harmonic bases.
"""

from __future__ import annotations

import math
from typing import get_args

import torch
from torch import Tensor

from sdi_gs.rasterize.request import CameraModel, RasterizeMode, RenderMode, RenderRequest
from sdi_gs.rasterize.spherical_harmonics import MAX_DEGREE

_RENDER_MODES, _RASTERIZE_MODES, _KNOWN_CAMERA_MODELS = map(get_args, (RenderMode, RasterizeMode, CameraModel))
_CAMERA_MODELS = ("pinhole", "ortho")
"""Those of ``CameraModel`` that the CPU backend supports."""


def check_request(request: RenderRequest) -> None:
    """Check all arguments of ``rasterization`` for the CPU backend.

    Raises:
        ValueError: A tensor has the wrong shape, type or device or holds NaN or infinity, or a choice is unknown.
        NotImplementedError: The camera model or harmonic degree needs gsplat's CUDA backend.
    """
    _check_choice("render_mode", request.render_mode, _RENDER_MODES)
    _check_choice("rasterize_mode", request.rasterize_mode, _RASTERIZE_MODES)
    _check_choice("camera_model", request.camera_model, _KNOWN_CAMERA_MODELS)
    if request.camera_model not in _CAMERA_MODELS:
        raise NotImplementedError(
            f"camera_model on CPU is one of {', '.join(_CAMERA_MODELS)}; {request.camera_model!r} needs gsplat's CUDA "
            "backend"
        )
    for name, size in (("width", request.width), ("height", request.height)):
        if size < 1:
            raise ValueError(f"{name} must be at least 1 pixel, got {size}")
    means, colors, viewmats, covars = request.means, request.colors, request.viewmats, request.covars
    if means.dim() != 2 or means.shape[1] != 3:
        raise ValueError(f"means must have shape [N, 3] (no batch dimensions on CPU), got {list(means.shape)}")
    if viewmats.dim() != 3:
        raise ValueError(f"viewmats must have shape [C, 4, 4] (no batch dimensions on CPU), got {list(viewmats.shape)}")
    num_gaussians, num_cameras = len(means), len(viewmats)
    if num_cameras == 0:
        raise ValueError("viewmats must hold at least one camera, got shape [0, 4, 4]")
    if covars is None:
        shapes = {"quats": (request.quats, (4,)), "scales": (request.scales, (3,))}
    else:
        shapes = {"covars": (covars, (3, 3))}
    tensors = {name: getattr(request, name) for name in ("means", "opacities", "colors", "viewmats", "Ks")}
    for name, (tensor, own_shape) in shapes.items():
        if tensor is None:
            raise ValueError(f"{name} may be None only if covars is given")
        _check_shape(name, tensor, (num_gaussians, *own_shape))
        tensors[name] = tensor
    _check_shape("opacities", request.opacities, (num_gaussians,))
    _check_shape("viewmats", viewmats, (num_cameras, 4, 4))
    _check_shape("Ks", request.Ks, (num_cameras, 3, 3))
    _check_colors(colors, num_gaussians, num_cameras, request.sh_degree)
    if request.backgrounds is not None:
        _check_shape("backgrounds", request.backgrounds, (num_cameras, colors.shape[-1]))
        tensors["backgrounds"] = request.backgrounds
    for name, tensor in tensors.items():
        _check_values(name, tensor)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def _check_shape(name: str, tensor: Tensor, expected: tuple[int, ...]) -> None:
    if tensor.shape != expected:
        raise ValueError(f"{name} must have shape {list(expected)}, got {list(tensor.shape)}")


def _check_colors(colors: Tensor, num_gaussians: int, num_cameras: int, sh_degree: int | None) -> None:
    if sh_degree is None:
        own_dims, letters = 1, "D"
    else:
        if not 0 <= sh_degree <= MAX_DEGREE:
            raise NotImplementedError(f"sh_degree on CPU goes from 0 to {MAX_DEGREE}, got {sh_degree}")
        own_dims, letters = 2, f"K >= {(sh_degree + 1) ** 2}, 3"
    leading = tuple(colors.shape[: colors.dim() - own_dims])
    fits = leading in ((num_gaussians,), (num_cameras, num_gaussians)) and colors.shape[-1] > 0
    if fits and sh_degree is not None:
        fits = colors.shape[-1] == 3 and colors.shape[-2] >= (sh_degree + 1) ** 2
    if not fits:
        raise ValueError(
            f"colors must have shape [{num_gaussians}, {letters}] or [{num_cameras}, {num_gaussians}, {letters}], "
            f"got {list(colors.shape)}"
        )


def _check_values(name: str, tensor: Tensor) -> None:
    if not tensor.is_cpu:
        raise ValueError(f"{name} is on {tensor.device} while means is on cpu; move all tensors to one device")
    if tensor.dtype != torch.float32:
        raise ValueError(f"{name} must be float32, got {tensor.dtype}")
    # The sum is a cheap first test: NaN or infinity make it non-finite. Finite values may overflow, hence the second.
    values = tensor.detach()
    if not math.isfinite(values.sum().item()) and not bool(values.isfinite().all()):
        raise ValueError(f"{name} holds NaN or infinity ({int((~values.isfinite()).sum())} values)")
