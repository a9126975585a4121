"""Splats for the browser: the visible part of a cloud, scaled to the range of half floats.

The browser receives covariances as half floats and sorts splats into 65 536 depths: what it shows is a preview.

Letters: N splats of the cloud, M splats that are sent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sdi_gs.splats.screening import MIN_OPACITY_LOGIT
from sdi_gs.splats.splat_cloud import SplatCloud, rgb_from_sh_dc, rotation_matrices

MAX_SPLATS = 200_000
"""More make a browser stutter (field reports); those that contribute least are left out."""
OUTLIER_FACTOR = 8.0
"""Splats beyond this multiple of the 99 % distance from the middle are left out: they coarsen the sort."""
LARGEST_VARIANCE = 2.0**14
"""A quarter of the largest half float, since variances are summed."""


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """The page's options for the splats."""

    splat_scale: float = 1.0
    """Factor on every standard deviation."""
    crop: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None
    """Two opposite corners of a box; only splats with their centre inside are shown."""
    smallest_deviation: float = 0.0
    """Scene units; narrower axes are widened to it, since viser's shader drops splats much smaller than a pixel."""
    max_splats: int = MAX_SPLATS


@dataclass(frozen=True, kw_only=True)
class SplatArrays:
    """Buffers for viser's splats; the scale of its node is ``1 / factor``."""

    centers: np.ndarray  # [M, 3] float32, scene units times factor
    covariances: np.ndarray  # [M, 3, 3] float32, squared scene units times factor squared
    rgbs: np.ndarray  # [M, 3] uint8
    opacities: np.ndarray  # [M, 1] uint8
    factor: float
    presentable: int
    """Splats that a .ply file of this cloud would hold."""
    thinned: int
    """Of these, left out because they are too many."""
    cropped: int
    """Of these, left out by the crop box."""
    outliers: int
    """Of these, left out because they are too far away."""

    def __len__(self) -> int:
        return len(self.centers)


def splat_arrays(cloud: SplatCloud, options: StreamOptions) -> SplatArrays:
    """Return the visible part of a cloud; splats over the limit are left out, by opacity times size."""
    shown = _finite(cloud) & (cloud.opacity_logit >= MIN_OPACITY_LOGIT)
    presentable = int(shown.sum())
    cropped = outliers = thinned = 0
    if options.crop is not None:
        low, high = (torch.tensor(corner, dtype=cloud.means.dtype) for corner in options.crop)
        inside = ((cloud.means >= low) & (cloud.means <= high)).all(dim=1)
        cropped = int((shown & ~inside).sum())
        shown &= inside
    if bool(shown.any()):
        near = _near(cloud.means, shown)
        outliers = int((shown & ~near).sum())
        shown &= near
    kept = cloud.select(shown)
    if len(kept) > options.max_splats:
        thinned = len(kept) - options.max_splats
        kept = kept.select(_most_contributing(kept, options.max_splats))
    deviations = (kept.log_scales.double().exp() * options.splat_scale).clamp_min(options.smallest_deviation)
    factor = _half_float_factor(deviations)
    scaled = (deviations * factor).clamp(max=math.sqrt(LARGEST_VARIANCE))
    axes = rotation_matrices(kept.quats) * scaled[:, None, :]
    return SplatArrays(
        centers=(kept.means.double() * factor).float().numpy(),
        covariances=(axes @ axes.transpose(1, 2)).float().numpy(),
        rgbs=_bytes(rgb_from_sh_dc(kept.sh_dc)),
        opacities=_bytes(torch.sigmoid(kept.opacity_logit))[:, None],
        factor=factor,
        presentable=presentable,
        thinned=thinned,
        cropped=cropped,
        outliers=outliers,
    )


def _finite(cloud: SplatCloud) -> Tensor:  # [N] bool
    """Return which splats have finite values in what is sent, and a rotation."""
    parts = (cloud.means, cloud.log_scales.exp(), cloud.quats, cloud.opacity_logit[:, None], cloud.sh_dc)
    return torch.cat(parts, dim=1).isfinite().all(dim=1) & (cloud.quats != 0).any(dim=1)


def _near(
    means: Tensor,  # [N, 3]
    chosen: Tensor,  # [N] bool
) -> Tensor:  # [N] bool
    """Return which centres are within ``OUTLIER_FACTOR`` of the bulk of the chosen ones."""
    bulk = means[chosen]
    middle = bulk.median(dim=0).values
    reach = float((bulk - middle).norm(dim=1).kthvalue(math.ceil(0.99 * len(bulk))).values)
    return (means - middle).norm(dim=1) <= OUTLIER_FACTOR * reach


def _most_contributing(cloud: SplatCloud, count: int) -> Tensor:  # [N] bool
    """Return which are the ``count`` splats of largest opacity times the area of their two longest axes."""
    longest = cloud.log_scales.double().sort(dim=1).values[:, 1:].sum(dim=1)
    # Logarithms, since areas can exceed the range of floats.
    weight = torch.nn.functional.logsigmoid(cloud.opacity_logit.double()) + longest
    chosen = torch.zeros(len(cloud), dtype=torch.bool)
    chosen[weight.topk(count).indices] = True
    return chosen


def _half_float_factor(
    deviations: Tensor,  # [M, 3]
) -> float:
    """Return a power of two that moves the bulk of the variances to the middle of the half floats' range."""
    if not len(deviations):
        return 1.0
    logs = deviations.clamp_min(1e-30).log2()
    ordered = logs.flatten().sort().values
    low, high = (float(ordered[int(share * (len(ordered) - 1))]) for share in (0.01, 0.99))
    # Normal half floats range from 2^-14 to 2^15, so the middle is a variance of about 1.
    wanted = -round(0.5 * (low + high))
    allowed = math.floor(0.5 * math.log2(LARGEST_VARIANCE) - float(ordered[-1]))
    return 2.0 ** min(max(min(wanted, max(allowed, -round(high))), -60), 60)


def _bytes(values: Tensor) -> np.ndarray:
    return (values.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).numpy()
