"""Gaussians fitted to given pictures: what a representation can do when it is told the answer.

Letters: B cameras, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sdi_gs.backgrounds import BACKGROUND_COLOURS
from sdi_gs.cameras import CameraBatch, sample_cameras
from sdi_gs.initial_cloud import initial_gaussians
from sdi_gs.representations.densify import Densifier
from sdi_gs.representations.gaussians import Gaussians, gaussian_optimizers
from sdi_gs.representations.update import update_gaussians
from sdi_gs.run_config import RunConfig


def fit_to_images(
    config: RunConfig,
    images_of: Callable[[CameraBatch, Tensor], Tensor],  # B cameras, backgrounds [B, 3] -> [B, H, W, 3] in [0, 1]
    *,
    image_size: int,
    device: torch.device,
) -> Gaussians:
    """Fit by plain mean squared error, all else as in a run of this config.

    Initial cloud, steps, views per step, cameras, backgrounds (in turn), optimisers and densification are the
    run's; there is no prior and no regulariser.
    """
    host_generator = torch.Generator().manual_seed(config.seed)
    # The trainer's seed for the device, so that the initial cloud is the run's own.
    cloud_generator = torch.Generator(device).manual_seed(config.seed + 1)
    gaussians = initial_gaussians(config.gaussians, generator=cloud_generator, device=device)
    optimizers = gaussian_optimizers(gaussians, config.gaussians)
    densifier = Densifier(config.densify, config.steps)
    colours = torch.tensor([BACKGROUND_COLOURS[name] for name in config.backgrounds], device=device)
    views = torch.arange(config.views_per_step)
    for step in range(config.steps):
        cameras = sample_cameras(
            config.cameras, config.views_per_step, width=image_size, height=image_size, generator=host_generator
        )
        background = colours[(step * config.views_per_step + views) % len(colours)]
        render = gaussians.render(cameras.to(device), background)
        loss = (render.rgb - images_of(cameras, background).to(device)).square().mean()
        update_gaussians(
            gaussians,
            optimizers,
            densifier,
            config.gaussians,
            loss=loss,
            meta=render.meta,
            step=step,
            num_steps=config.steps,
            generator=host_generator,
        )
    return gaussians
