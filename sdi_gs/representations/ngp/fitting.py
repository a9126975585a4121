"""A field fitted to given pictures.

Letters: B cameras, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.representations.ngp.ngp import Ngp, ngp_optimizers

FINAL_RATE = 0.1
"""Share of the learning rates that is left at the end of a fit; exponential in between."""


@dataclass(frozen=True, kw_only=True)
class Views:
    """Pictures and where they were taken."""

    cameras: CameraBatch
    background: Tensor  # [B, 3] in [0, 1], what the pictures were composited over
    images: Tensor  # [B, H, W, 3] in [0, 1]


def fit_ngp(
    ngp: Ngp,
    views_of: Callable[[int], Views],  # the views of a step
    *,
    steps: int,
    generator: torch.Generator,
) -> None:
    """Fit by plain mean squared error, without regularisers; levels join as in a run of as many steps."""
    optimizers = ngp_optimizers(ngp)
    rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in optimizers.items()}
    for step in range(steps):
        progress = step / steps
        views = views_of(step)
        ngp.before_step(progress, generator)
        render = ngp.render_for_training(views.cameras, views.background, progress=progress, generator=generator)
        (render.rgb - views.images).square().mean().backward()
        for name, optimizer in optimizers.items():
            optimizer.param_groups[0]["lr"] = rates[name] * FINAL_RATE**progress
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    ngp.settle()
