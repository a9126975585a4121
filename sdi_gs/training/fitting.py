"""A scene fitted to given pictures: the best that a representation can do.

Letters: B cameras, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch, sample_cameras
from sdi_gs.contracts import Scene, StartScene
from sdi_gs.representations.catalog import make_scene
from sdi_gs.settings.run import RunConfig
from sdi_gs.training.backgrounds import colours_of


def fit_to_images(
    config: RunConfig,
    images_of: Callable[[CameraBatch, Tensor], Tensor],  # B cameras, backgrounds [B, 3] -> [B, H, W, 3] in [0, 1]
    *,
    image_size: int,
    device: torch.device,
    final_rate: float = 1.0,
    saved: dict[str, Any] | None = None,
    start: StartScene | None = None,
) -> Scene:
    """Fit by plain mean squared error, all else as in a run of this config.

    Start, steps, views per step, cameras, backgrounds (in turn), optimisers and densification are the run's; there
    is no prior and no regulariser. ``final_rate`` is the share of the learning rates that is left at the end.
    ``saved`` is a scene's ``state`` to begin with instead of the configured start, ``start`` the result of the run
    that the configured scene starts from, if it does.
    """
    host_generator = torch.Generator().manual_seed(config.seed)
    # The trainer's seed for the device, so that the start is the run's own.
    device_generator = torch.Generator(device).manual_seed(config.seed + 1)
    scene = make_scene(config, generator=device_generator, device=device, saved=saved, start=start)
    if saved is not None:
        scene.load_state(saved)
    colours = colours_of(config.backgrounds, host_generator, device)
    views = torch.arange(config.views_per_step)
    for step in range(config.steps):
        cameras = sample_cameras(
            config.cameras, config.views_per_step, width=image_size, height=image_size, generator=host_generator
        )
        background = colours[(step * config.views_per_step + views) % len(colours)]
        scene.update_config(
            replace(config, learning_rate_scale=config.learning_rate_scale * final_rate ** (step / config.steps))
        )
        render = scene.render(cameras.to(device), background, progress=step / config.steps, generator=device_generator)
        loss = (render.rgb - images_of(cameras, background).to(device)).square().mean()
        scene.backward(loss, render, step=step)
        scene.update(render, step=step, generator=host_generator)
    scene.finalize()
    return scene
