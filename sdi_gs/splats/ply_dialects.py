"""Properties of a splat .ply as other programs write them, as a cloud: what INRIA's layout lacks, and what it adds.

- 2D Gaussian Splatting has no ``scale_2``: its splats are flat.
- Harmonics above degree 3 are left out.
- ``red``, ``green`` and ``blue`` may stand for ``f_dc_*`` (nerfstudio's colour mode rgb).
- Mip-Splatting's ``filter_3D`` is the width of a smoothing that its renderer applies: it is baked into the splats.

Letters: N splats, K harmonics per channel above band 0.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sdi_gs.errors import UserError
from sdi_gs.splats.ply_columns import columns, positions, rgb_columns, rgb_names, rounded
from sdi_gs.splats.splat_cloud import REST_COEFFICIENTS, SplatCloud, sh_dc_from_rgb

SH_DC = ("f_dc_0", "f_dc_1", "f_dc_2")
OPACITY = "opacity"
SCALES = ("scale_0", "scale_1", "scale_2")
QUATS = ("rot_0", "rot_1", "rot_2", "rot_3")
FILTER = "filter_3D"
FLAT_LOG_SCALE = math.log(1e-6)
"""Thickness of a flat splat; SuperSplat's, scene units."""


def required_properties(names: Sequence[str]) -> tuple[str, ...]:
    """Return the properties that a file with these names needs to be one of splats."""
    colours = () if rgb_names(names) is not None and not set(SH_DC) & set(names) else SH_DC
    scales = SCALES[:2] if SCALES[1] in names else SCALES
    return (*"xyz", *colours, OPACITY, *scales, *QUATS)


def cloud_of(table: np.ndarray, path: Path) -> SplatCloud:
    """Return the splats of a vertex table, as float32; a warning reports what is left out or changed.

    Raises UserError for an odd number of harmonics.
    """
    names = table.dtype.names or ()
    log_scales, opacity_logit = _log_scales(table, path), columns(table, [OPACITY])[:, 0]
    if FILTER in names:
        log_scales, opacity_logit = smoothed(log_scales, opacity_logit, columns(table, [FILTER])[:, 0])
        _report(path, f"{FILTER} (Mip-Splatting's smoothing) is baked into its scales and opacities")
    return SplatCloud(
        means=rounded(positions(table), path),
        log_scales=log_scales,
        quats=columns(table, QUATS),
        opacity_logit=opacity_logit,
        sh_dc=_sh_dc(table),
        sh_rest=_sh_rest(table, path),
    )


def smoothed(
    log_scales: Tensor,  # [N, 3]
    opacity_logit: Tensor,  # [N]
    widths: Tensor,  # [N] standard deviations of the smoothing, scene units
) -> tuple[Tensor, Tensor]:
    """Return log scales and logits of splats convolved with a round Gaussian: wider, and as heavy as before."""
    squares = (2.0 * log_scales.double()).exp()
    wider = squares + widths.double().square()[:, None]
    share = (squares.log() - wider.log()).sum(dim=-1).mul(0.5).exp()
    # A splat without any width stays as heavy as it was, which is nothing.
    share = torch.where(share.isnan(), torch.zeros_like(share), share)
    opacity = torch.sigmoid(opacity_logit.double()) * share
    return (0.5 * wider.log()).float(), torch.logit(opacity).float()


def _log_scales(table: np.ndarray, path: Path) -> Tensor:  # [N, 3]
    if SCALES[2] in (table.dtype.names or ()):
        return columns(table, SCALES)
    _report(path, f"it has no {SCALES[2]}, so its splats are flat (2D Gaussian Splatting)")
    flat = columns(table, SCALES[:2])
    return torch.cat([flat, torch.full((len(flat), 1), FLAT_LOG_SCALE)], dim=1)


def _sh_dc(table: np.ndarray) -> Tensor:  # [N, 3]
    names = table.dtype.names or ()
    rgb = None if SH_DC[0] in names else rgb_names(names)
    return columns(table, SH_DC) if rgb is None else sh_dc_from_rgb(rgb_columns(table, rgb))


def _sh_rest(table: np.ndarray, path: Path) -> Tensor:  # [N, K, 3]
    """Return the coefficients above band 0, up to degree 3."""
    names = set(table.dtype.names or ())
    count = sum(name.startswith("f_rest_") for name in names)
    rest = [f"f_rest_{index}" for index in range(count)]
    absent = [name for name in rest if name not in names]
    per_channel = count // 3
    degree = math.isqrt(per_channel + 1) - 1
    if count % 3 or (degree + 1) ** 2 != per_channel + 1 or absent:
        raise UserError(
            f"cannot read {path}: it has {count} f_rest_* properties{f' but no {absent[0]}' if absent else ''}, "
            "splats have 0, 9, 24 or 45 in a row from f_rest_0; export it anew"
        )
    kept = min(per_channel, REST_COEFFICIENTS[-1])
    if kept < per_channel:
        _report(path, f"its harmonics of degree {degree} are used up to degree 3")
    # All red coefficients, then green, then blue.
    used = [rest[channel * per_channel + index] for channel in range(3) for index in range(kept)]
    return columns(table, used).reshape(len(table), 3, kept).transpose(1, 2).contiguous()


def _report(path: Path, text: str) -> None:
    warnings.warn(f"{path}: {text}", stacklevel=3)
