"""Between the Gaussians that train and the cloud that a file holds; both store raw values.

Letters: N Gaussians.
"""

from __future__ import annotations

import torch

from sdi_gs.representations.gaussians import Gaussians
from sdi_gs.splats.splat_cloud import SplatCloud


def splat_cloud(gaussians: Gaussians) -> SplatCloud:
    """A copy on the host, ready to be written."""
    params = {name: value.detach().cpu().clone() for name, value in gaussians.params.items()}
    means = params["means"]
    return SplatCloud(
        means=means,
        log_scales=params["scales"],
        quats=params["quats"],
        opacity_logit=params["opacities"],
        sh_dc=params["sh0"][:, 0],
        sh_rest=params.get("shN", means.new_zeros(len(means), 0, 3)),
    )


def gaussians_from_cloud(cloud: SplatCloud, *, device: torch.device | str = "cpu") -> Gaussians:
    """Gaussians that render a file's cloud."""
    params = {
        "means": cloud.means,
        "scales": cloud.log_scales,
        "quats": cloud.quats,
        "opacities": cloud.opacity_logit,
        "sh0": cloud.sh_dc[:, None],
    }
    if cloud.sh_rest.shape[1]:
        params["shN"] = cloud.sh_rest
    return Gaussians({name: value.to(device, torch.float32) for name, value in params.items()})
