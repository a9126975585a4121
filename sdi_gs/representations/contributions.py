"""How much each Gaussian adds to the pictures of a scene.

Letters: B cameras, N Gaussians, H W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.rasterize import rasterization
from sdi_gs.representations.gaussians import Gaussians


def contributions(gaussians: Gaussians, cameras: CameraBatch) -> Tensor:  # [N]
    """Return the sum of each Gaussian's blending weights over all pixels of B cameras, pixels.

    A weight is the share of a pixel's colour that comes from the Gaussian: its alpha there times what those before it
    let through. It is the derivative of the picture by the Gaussian's colour, which the rasteriser computes.
    """
    device = gaussians.device
    colours = torch.ones(len(gaussians), 1, device=device, requires_grad=True)
    params = {name: value.detach() for name, value in gaussians.params.items()}
    for index in range(len(cameras)):
        camera = cameras.rows(slice(index, index + 1)).to(device)
        picture, _, _ = rasterization(
            means=params["means"],
            quats=params["quats"],
            scales=params["scales"].exp(),
            opacities=params["opacities"].sigmoid(),
            colors=colours,
            viewmats=camera.camera_from_world,
            Ks=camera.intrinsics,
            width=camera.width,
            height=camera.height,
            packed=False,
        )
        # Gradients of one camera after the other add up.
        picture.sum().backward()
    return torch.zeros(len(gaussians), device=device) if colours.grad is None else colours.grad[:, 0]
