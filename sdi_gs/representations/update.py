"""One update of a cloud: the order that gsplat's strategies ask for, in one place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sdi_gs.representations.densify import Densifier
from sdi_gs.representations.gaussians import Gaussians, means_learning_rate
from sdi_gs.representations.shape_guards import cap_axis_ratio
from sdi_gs.settings.gaussians import GaussiansConfig


def update_gaussians(
    gaussians: Gaussians,
    optimizers: dict[str, torch.optim.Optimizer],
    densifier: Densifier,
    config: GaussiansConfig,
    *,
    loss: Tensor,  # []
    meta: dict[str, Any],
    step: int,
    num_steps: int,
    generator: torch.Generator,
    timestep_fraction: float | None = None,
    check_gradients: Callable[[], None] = lambda: None,
) -> None:
    """Keep screen-space gradients, backward, optimise, densify; ``meta`` is the render's that ``loss`` came from.

    ``timestep_fraction`` is the diffusion's t over its length, None where there is no diffusion.
    ``check_gradients`` may raise after the backward pass, before any parameter moves.
    """
    densifier.before_backward(gaussians, optimizers, step, meta)
    loss.backward()
    check_gradients()
    optimizers["means"].param_groups[0]["lr"] = means_learning_rate(config, step, num_steps)
    for optimizer in optimizers.values():
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    if config.axis_ratio_cap is not None:
        cap_axis_ratio(gaussians.params["scales"], config.axis_ratio_cap)
    densifier.after_step(gaussians, optimizers, step, meta, generator, timestep_fraction=timestep_fraction)
