"""A cloud as the options of an export ask for it: harmonics up to a degree, an object of a height in metres.

Letters: N splats, K harmonics per channel above band 0 (0, 3, 8 or 15).
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from sdi_gs.errors import UserError
from sdi_gs.settings.export import ExportOptions, ShDegree
from sdi_gs.splats.screening import MIN_OPACITY_LOGIT
from sdi_gs.splats.splat_cloud import REST_COEFFICIENTS, SplatCloud, rotation_matrices

OUTLIERS = 0.001
"""Share of the splats, at the top and at the bottom, that do not count for the height: floaters."""


def prepared(cloud: SplatCloud, options: ExportOptions) -> tuple[SplatCloud, float]:
    """Return the cloud [N] of the training world that is written, and the length of a scene unit in it.

    Raises UserError where a height is asked of splats that have none.
    """
    cut = with_sh_degree(cloud, options.sh_degree)
    unit = 1.0 if options.scale is None else options.scale / height_of(cut)
    return (cut if unit == 1.0 else scaled(cut, unit)), unit


def with_sh_degree(cloud: SplatCloud, degree: ShDegree) -> SplatCloud:
    """Return the cloud without the harmonics above a degree, or filled up with zeros to degree 3."""
    if degree == "keep":
        return cloud
    rest = cloud.sh_rest
    if degree == "3-pad":
        missing = rest.new_zeros(len(cloud), REST_COEFFICIENTS[-1] - rest.shape[1], 3)
        return replace(cloud, sh_rest=torch.cat([rest, missing], dim=1))
    return replace(cloud, sh_rest=rest[:, : REST_COEFFICIENTS[int(degree)]])


def scaled(cloud: SplatCloud, factor: float) -> SplatCloud:
    """Return the cloud made larger by a factor, about the origin."""
    return replace(cloud, means=cloud.means * factor, log_scales=cloud.log_scales + math.log(factor))


def height_of(cloud: SplatCloud) -> float:
    """Return the height along z of the visible splats at one standard deviation, but for a few outliers.

    Raises UserError where no splat is visible, or all are in one plane.
    """
    seen = cloud.select((cloud.opacity_logit >= MIN_OPACITY_LOGIT) & cloud.means.isfinite().all(dim=-1))
    if len(seen):
        axes = rotation_matrices(seen.quats)[:, 2] * seen.log_scales.double().exp()
        middle, reach = seen.means[:, 2].double(), axes.norm(dim=-1)
        outside = int(OUTLIERS * len(seen))
        low = (middle - reach).kthvalue(1 + outside).values
        high = (middle + reach).kthvalue(len(seen) - outside).values
        height = float(high - low)
        if 0.0 < height < math.inf:
            return height
    raise UserError("these splats have no height to scale: leave --scale out")
