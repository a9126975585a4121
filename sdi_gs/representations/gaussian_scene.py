"""Gaussians as a run optimises them: parameters, optimisers, regularisers and densification.

Letters: B cameras, N Gaussians, H W pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.contracts import RenderOutput, StartScene
from sdi_gs.representations.catalog import RepresentationEntry
from sdi_gs.representations.densify import Densifier
from sdi_gs.representations.gaussian_losses import compactness_loss, disparity, fog_loss, needle_loss, total_variation
from sdi_gs.representations.gaussians import (
    Gaussians,
    gaussian_optimizers,
    set_learning_rates,
)
from sdi_gs.representations.initial_gaussians import initial_gaussians, kind_of_start
from sdi_gs.representations.optimizers import (
    Optimizers,
    clear_gradients,
    gradients_of,
    load_states,
    require_states,
    states_of,
    take_step,
)
from sdi_gs.representations.saved_state import misfit, part_of, require_names, require_tensor
from sdi_gs.representations.shape_guards import cap_axis_ratio, widen_axes
from sdi_gs.representations.view_groups import render_in_groups
from sdi_gs.settings.run import RunConfig

_SHAPES: dict[str, tuple[int | None, ...]] = {
    "means": (3,),
    "scales": (3,),
    "quats": (4,),
    "opacities": (),
    "sh0": (1, 3),
    "shN": (None, 3),
}
"""Sizes of one Gaussian's parameters; the last is of splats that have it."""


class GaussianScene:
    """Gaussians with their optimisers and their densification."""

    def __init__(
        self,
        config: RunConfig,
        *,
        generator: torch.Generator,
        device: torch.device,
        saved: dict[str, Any] | None = None,
        start: StartScene | None = None,
    ) -> None:
        """Build the configured start, or the Gaussians of a ``saved`` state, which needs no file to start from.

        ``start`` is the run that ``config.gaussians.init_from`` names, if it names one.
        Raises UserError for a start that cannot be had, or that exceeds the cap on the number of Gaussians.
        """
        self.config = config
        self.device = device
        if saved is not None:
            self.gaussians = restore_gaussians(config, saved, device=device)
        else:
            self.gaussians = initial_gaussians(config.gaussians, generator=generator, device=device, start=start)
        self.optimizers = self._new_optimizers(self.gaussians)
        self.densifier = Densifier(config.densify, config.steps)
        self.densifier.require_room(self.gaussians)

    @property
    def representation(self) -> Gaussians:
        """The Gaussians as they are now."""
        return self.gaussians

    def render(
        self,
        cameras: CameraBatch,  # B of them
        background: Tensor,  # [B, 3] in [0, 1]
        *,
        progress: float,
        generator: torch.Generator,
    ) -> RenderOutput:
        """Rasterise ``compute.views_at_once`` cameras at a time."""
        at_once, with_depth = self.config.compute.views_at_once, self.config.losses.depth_tv > 0.0
        return render_in_groups(self.gaussians, cameras, background, at_once, with_depth=with_depth)

    def losses(self, render: RenderOutput, cameras: CameraBatch, progress: float) -> dict[str, Tensor]:
        """Return the weighted terms that apply."""
        weights, params = self.config.losses, self.gaussians.params
        terms = {}
        if weights.fog > 0.0 and progress >= weights.fog_start:
            ramp = (progress - weights.fog_start) / max(1.0 - weights.fog_start, 1e-6)
            terms["fog"] = weights.fog * ramp * fog_loss(render.alpha)
        if weights.compactness > 0.0:
            terms["compactness"] = weights.compactness * compactness_loss(
                params["means"], torch.sigmoid(params["opacities"])
            )
        if weights.needles > 0.0:
            terms["needles"] = weights.needles * needle_loss(params["scales"], weights.max_anisotropy)
        if weights.picture_tv > 0.0:
            terms["picture_tv"] = weights.picture_tv * total_variation(render.rgb)
        if weights.depth_tv > 0.0:
            assert render.depth is not None
            focal = cameras.intrinsics[:, 1, 1] / cameras.height
            terms["depth_tv"] = weights.depth_tv * total_variation(disparity(render.depth, render.alpha, focal))
        if weights.mean_scale > 0.0:
            terms["mean_scale"] = weights.mean_scale * torch.exp(params["scales"]).mean()
        return terms

    def backward(self, loss: Tensor, render: RenderOutput, *, step: int) -> None:
        """Compute the gradients, those of the screen-space means for densification included."""
        self.densifier.before_backward(self.gaussians, self.optimizers, step, render.meta)
        loss.backward()

    def gradients(self) -> dict[str, Tensor]:
        """Return the gradients of all parameters that have one, by name."""
        return gradients_of(self.gaussians.params)

    def drop_gradients(self) -> None:
        """Clear the gradients of a step that failed."""
        clear_gradients(self.optimizers)

    def update(
        self,
        render: RenderOutput,
        *,
        step: int,
        generator: torch.Generator,
        timestep_fraction: float | None = None,
    ) -> None:
        """Take one step of every optimiser, limit the axes if configured, then densify."""
        own = self.config.gaussians
        self._set_rates(self.optimizers, self.config.scheduled(step) / max(self.config.steps - 1, 1))
        take_step(self.optimizers)
        if own.axis_ratio_cap is not None:
            cap_axis_ratio(self.gaussians.params["scales"], own.axis_ratio_cap)
        if own.smallest_scale is not None:
            widen_axes(self.gaussians.params["scales"], own.smallest_scale)
        self.densifier.after_step(
            self.gaussians, self.optimizers, step, render.meta, generator, timestep_fraction=timestep_fraction
        )

    def finalize(self) -> None:
        """Do nothing: Gaussians are complete after every step."""

    def update_config(self, config: RunConfig) -> None:
        """Take over the learning rates of a config that changed during the run."""
        self.config = config
        self._set_rates(self.optimizers, 0.0)

    def state(self) -> dict[str, Any]:
        """Return everything that the next step depends on, as nested dicts of tensors and numbers."""
        return {
            "gaussians": {name: value.detach() for name, value in self.gaussians.params.items()},
            "optimizers": states_of(self.optimizers),
            "densify": self.densifier.state,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what ``state`` returned; UserError, with everything as it was, for a state that does not fit."""
        gaussians = restore_gaussians(self.config, state, device=self.device)
        optimizers = self._new_optimizers(gaussians)
        saved = require_states(state, optimizers)
        densify = part_of(state, "densify", dict)
        self.densifier.require_state(densify, gaussians)
        load_states(optimizers, saved)
        self.gaussians, self.optimizers = gaussians, optimizers
        self.densifier.state = {
            name: value.to(self.device) if isinstance(value, Tensor) else value for name, value in densify.items()
        }

    def _new_optimizers(self, gaussians: Gaussians) -> Optimizers:
        """Return fresh optimisers at the rates of the run's start."""
        fused = self.config.compute.fused_adam
        optimizers = gaussian_optimizers(gaussians, self.config.gaussians, fused=fused)
        self._set_rates(optimizers, 0.0)
        return optimizers

    def _set_rates(self, optimizers: Optimizers, progress: float) -> None:
        """Set all learning rates to those of a share of the run."""
        set_learning_rates(optimizers, self.config.gaussians, progress, factor=self.config.learning_rate_scale)


def restore_gaussians(config: RunConfig, state: dict[str, Any], *, device: torch.device) -> Gaussians:
    """Return the Gaussians of a scene's ``state``, for rendering; UserError for a state that holds none."""
    saved = part_of(state, "gaussians", dict)
    means = part_of(saved, "means", Tensor)
    count = len(means) if means.dim() else 0
    if not count:
        raise misfit("gaussians/means holds no Gaussians")
    for name in saved:
        if name not in _SHAPES:
            raise misfit(f"gaussians holds {name}, which Gaussians do not have")
        require_tensor(part_of(saved, name, Tensor), f"gaussians/{name}", (count, *_SHAPES[name]))
    require_names(saved, (name for name in _SHAPES if name != "shN" or name in saved), "gaussians")
    return Gaussians({name: value.to(device) for name, value in saved.items()})


def run_to_start_from(config: RunConfig) -> Path | None:
    """Return the run that ``gaussians.init_from`` names; None if it names none."""
    return Path(config.gaussians.init_from or "") if kind_of_start(config.gaussians) == "run" else None


ENTRY = RepresentationEntry(
    noun="Gaussians",
    make=GaussianScene,
    restore=restore_gaussians,
    needs_rasterizer=True,
    run_to_start_from=run_to_start_from,
)
