"""Check the CPU backend's input, and hand it to the kernels as arrays; errors name the argument.

Letters: C cameras, N Gaussians, D colour channels, K harmonic bases.
"""

from __future__ import annotations

from typing import get_args

import numpy as np
import torch
from torch import Tensor

from sdi_gs.rasterize.kernels.finite import all_finite
from sdi_gs.rasterize.request import CameraModel, RasterizeMode, RenderMode, RenderRequest
from sdi_gs.rasterize.spherical_harmonics import MAX_DEGREE

_RENDER_MODES, _RASTERIZE_MODES, _KNOWN_CAMERA_MODELS = map(get_args, (RenderMode, RasterizeMode, CameraModel))
_CAMERA_MODELS = ("pinhole", "ortho")
"""Those of ``CameraModel`` that the CPU backend supports."""


def check_request(request: RenderRequest) -> dict[str, np.ndarray]:
    """Check all arguments of ``rasterization`` for the CPU backend, and return its tensors as contiguous arrays.

    Raises:
        ValueError: A tensor has the wrong shape, type or device or holds NaN or infinity, or a choice is unknown.
        NotImplementedError: The camera model or harmonic degree needs gsplat's CUDA backend.
    """
    for name, value, choices in (
        ("render_mode", request.render_mode, _RENDER_MODES),
        ("rasterize_mode", request.rasterize_mode, _RASTERIZE_MODES),
        ("camera_model", request.camera_model, _KNOWN_CAMERA_MODELS),
    ):
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    if request.camera_model not in _CAMERA_MODELS:
        raise NotImplementedError(
            f"camera_model on CPU is one of {', '.join(_CAMERA_MODELS)}; {request.camera_model!r} needs gsplat's CUDA "
            "backend"
        )
    for name, size in (("width", request.width), ("height", request.height)):
        if size < 1:
            raise ValueError(f"{name} must be at least 1 pixel, got {size}")
    tensors = _shaped_tensors(request)
    arrays = {}
    # The loop's body is written out, without functions: it runs for each tensor of every call.
    for name, tensor in tensors.items():
        if not tensor.is_cpu:
            raise ValueError(f"{name} is on {tensor.device} while means is on cpu; move all tensors to one device")
        if tensor.dtype != torch.float32:
            raise ValueError(f"{name} must be float32, got {tensor.dtype}")
        arrays[name] = (tensor if tensor.is_contiguous() else tensor.contiguous()).numpy(force=True)
        if not all_finite(arrays[name]):
            count = np.count_nonzero(~np.isfinite(arrays[name]))
            raise ValueError(f"{name} holds NaN or infinity ({count} values)")
    return arrays


def _shaped_tensors(request: RenderRequest) -> dict[str, Tensor]:
    """Return the tensors that are rendered, by name; raise ValueError that names one with the wrong shape."""
    means, colors, viewmats, covars = request.means, request.colors, request.viewmats, request.covars
    if means.ndim != 2 or means.shape[1] != 3:
        raise ValueError(f"means must have shape [N, 3] (no batch dimensions on CPU), got {list(means.shape)}")
    if viewmats.ndim != 3:
        raise ValueError(f"viewmats must have shape [C, 4, 4] (no batch dimensions on CPU), got {list(viewmats.shape)}")
    num_gaussians, num_cameras = means.shape[0], viewmats.shape[0]
    if num_cameras == 0:
        raise ValueError("viewmats must hold at least one camera, got shape [0, 4, 4]")
    shapes: dict[str, tuple[Tensor | None, tuple[int, ...]]] = {}
    if covars is None:
        shapes["quats"] = (request.quats, (num_gaussians, 4))
        shapes["scales"] = (request.scales, (num_gaussians, 3))
    else:
        shapes["covars"] = (covars, (num_gaussians, 3, 3))
    shapes["opacities"] = (request.opacities, (num_gaussians,))
    shapes["viewmats"] = (viewmats, (num_cameras, 4, 4))
    shapes["Ks"] = (request.Ks, (num_cameras, 3, 3))
    if request.backgrounds is not None:
        shapes["backgrounds"] = (request.backgrounds, (num_cameras, *colors.shape[-1:]))
    tensors = {"means": means, "colors": colors}
    for name, (tensor, shape) in shapes.items():
        if tensor is None:
            raise ValueError(f"{name} may be None only if covars is given")
        if tensor.shape != shape:
            raise ValueError(f"{name} must have shape {list(shape)}, got {list(tensor.shape)}")
        tensors[name] = tensor
    _check_colors(colors.shape, num_gaussians, num_cameras, request.sh_degree)
    return tensors


def _check_colors(shape: torch.Size, num_gaussians: int, num_cameras: int, sh_degree: int | None) -> None:
    if sh_degree is None:
        own_dims, letters = 1, "D"
    else:
        if not 0 <= sh_degree <= MAX_DEGREE:
            raise NotImplementedError(f"sh_degree on CPU goes from 0 to {MAX_DEGREE}, got {sh_degree}")
        own_dims, letters = 2, f"K >= {(sh_degree + 1) ** 2}, 3"
    fits = shape[:-own_dims] in ((num_gaussians,), (num_cameras, num_gaussians)) and shape[-1] > 0
    if fits and sh_degree is not None:
        fits = shape[-1] == 3 and shape[-2] >= (sh_degree + 1) ** 2
    if not fits:
        raise ValueError(
            f"colors must have shape [{num_gaussians}, {letters}] or [{num_cameras}, {num_gaussians}, {letters}], "
            f"got {list(shape)}"
        )
