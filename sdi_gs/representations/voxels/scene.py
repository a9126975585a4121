"""A voxel grid as a run optimises it: the grid, optimisers, regularisers and doublings.

Letters: B cameras, S vertices along a side.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sdi_gs.cameras import CameraBatch
from sdi_gs.contracts import RenderOutput, StartScene
from sdi_gs.representations.adam import RunAdam
from sdi_gs.representations.catalog import RepresentationEntry
from sdi_gs.representations.ngp.backends import configured_backend
from sdi_gs.representations.ngp.regularizers import opaqueness_loss, scheduled, sparsity_loss, z_variance_loss
from sdi_gs.representations.ngp.rendering import FieldRender
from sdi_gs.representations.optimizers import (
    Optimizers,
    clear_gradients,
    gradients_of,
    load_states,
    require_states,
    states_of,
    take_step,
)
from sdi_gs.representations.saved_state import count_of, misfit, part_of, require_names, require_tensor
from sdi_gs.representations.voxels.voxels import Voxels, resampled
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.voxels import VoxelLossConfig, VoxelsConfig


class VoxelScene:
    """A voxel grid with one Adam for density and one for colour."""

    def __init__(
        self,
        config: RunConfig,
        *,
        generator: torch.Generator,
        device: torch.device,
        saved: dict[str, Any] | None = None,
        start: StartScene | None = None,
    ) -> None:
        """Build a new grid, which ``load_state`` fills in if there is a ``saved`` state.

        Raises ValueError for a ``start``: grids always start anew.
        """
        if start is not None:
            raise ValueError("a voxel grid does not start from another run's scene")
        self.config = config
        self.device = device
        self.voxels = Voxels(config.voxels, device=device)
        self.optimizers = voxel_optimizers(self.voxels, fused=config.compute.fused_adam)
        self._before_render = self._occupancy_state()
        self.update_config(config)

    @property
    def representation(self) -> Voxels:
        """The grid as it is now."""
        return self.voxels

    def render(
        self,
        cameras: CameraBatch,  # B of them
        background: Tensor,  # [B, 3] in [0, 1]
        *,
        progress: float,
        generator: torch.Generator,
    ) -> FieldRender:
        """Bring the occupancy up to date with ``progress``, then render for training."""
        self._before_render = self._occupancy_state()
        self.voxels.before_step(progress, generator, num_steps=self.config.steps)
        return self.voxels.render_for_training(
            cameras,
            background,
            generator=generator,
            views_at_once=self.config.compute.views_at_once,
            rays_at_once=self.config.compute.rays_at_once,
        )

    def losses(self, render: RenderOutput, cameras: CameraBatch, progress: float) -> dict[str, Tensor]:
        """Return the weighted regularisers of a render of ``render``."""
        assert isinstance(render, FieldRender)
        return voxel_losses(self.voxels, render, progress)

    def backward(self, loss: Tensor, render: RenderOutput, *, step: int) -> None:
        """Compute the gradients of all parameters."""
        loss.backward()

    def gradients(self) -> dict[str, Tensor]:
        """Return the gradients of all parameters that have one, by name."""
        return gradients_of(self.voxels.params)

    def drop_gradients(self) -> None:
        """Clear the gradients of a step that failed, and undo what its render brought up to date."""
        clear_gradients(self.optimizers)
        self.voxels.occupancy.alphas, self.voxels.steps_since_update = self._before_render

    def update(
        self,
        render: RenderOutput,
        *,
        step: int,
        generator: torch.Generator,
        timestep_fraction: float | None = None,
    ) -> None:
        """Take one step of both optimisers, and double the grid where the next step is due to have a finer one."""
        settings, steps = self.config.voxels, self.config.steps
        share = settings.final_rate ** (self.config.scheduled(step) / max(steps - 1, 1))
        for name, optimizer in self.optimizers.items():
            optimizer.param_groups[0]["lr"] = self.config.learning_rate_scale * share * _rate(settings, name)
        take_step(self.optimizers)
        side = settings.resolution_at(self.config.scheduled(step + 1) / steps)
        if side > self.voxels.resolution:
            self._refine(side)

    def finalize(self) -> None:
        """Recompute the occupancy grid."""
        self.voxels.occupancy.refresh(self.voxels.density_of)

    def update_config(self, config: RunConfig) -> None:
        """Take over the learning rates and the ways of computing of a config that changed during the run."""
        self.config = config
        for name, optimizer in self.optimizers.items():
            optimizer.param_groups[0]["lr"] = config.learning_rate_scale * _rate(config.voxels, name)
        self.voxels.backend = configured_backend(config.compute.field_kernels, self.device)

    def state(self) -> dict[str, Any]:
        """Return everything that the next step depends on, as nested dicts of tensors and numbers."""
        return {"voxels": self.voxels.state(), "optimizers": states_of(self.optimizers)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what ``state`` returned; UserError, with everything as it was, for a state that does not fit."""
        require_voxels(self.config.voxels, state)
        # Optimisers of the saved size: that of the run may be another.
        voxels = Voxels(self.config.voxels, device=self.device)
        voxels.load_state(state["voxels"])
        optimizers = voxel_optimizers(voxels, fused=self.config.compute.fused_adam)
        load_states(optimizers, require_states(state, optimizers))
        voxels.backend = self.voxels.backend
        self.voxels, self.optimizers = voxels, optimizers

    @torch.no_grad()
    def _refine(self, side: int) -> None:
        """Resample the grid and Adam's averages to more vertices."""
        for name, optimizer in self.optimizers.items():
            old = self.voxels.params[name]
            new = nn.Parameter(resampled(old.detach(), side))
            averages = optimizer.state.pop(old, None)
            if averages:
                optimizer.state[new] = {
                    key: value if value.dim() == 0 else resampled(value, side) for key, value in averages.items()
                }
            optimizer.param_groups[0]["params"][0] = new
            self.voxels.params[name] = new

    def _occupancy_state(self) -> tuple[Tensor, int]:
        return self.voxels.occupancy.alphas, self.voxels.steps_since_update


def voxel_losses(voxels: Voxels, render: FieldRender, progress: float) -> dict[str, Tensor]:
    """Return the weighted regularisers that apply at a share ``progress`` of the run."""
    weights: VoxelLossConfig = voxels.config.losses
    sparsity = scheduled(weights.sparsity, 0.0, weights.sparsity_end, progress)
    terms = {}
    if weights.tv_density > 0.0:
        opacity = -torch.expm1(-nn.functional.softplus(voxels.params["density"]) * voxels.config.step_length)
        terms["tv_density"] = weights.tv_density * total_variation(opacity[None])
    if weights.tv_colour > 0.0:
        terms["tv_colour"] = weights.tv_colour * total_variation(torch.sigmoid(voxels.params["colour"]))
    if sparsity > 0.0:
        terms["sparsity"] = sparsity * sparsity_loss(render.alpha)
    if weights.opaqueness > 0.0:
        terms["opaqueness"] = weights.opaqueness * opaqueness_loss(render.alpha)
    if weights.z_variance > 0.0:
        terms["z_variance"] = weights.z_variance * z_variance_loss(render.z_variance, render.alpha)
    return terms


def total_variation(
    grid: Tensor,  # [C, S, S, S]
) -> Tensor:
    """Return the mean over cells and channels of the length of the gradient, per cell (Plenoxels)."""
    here = grid[:, :-1, :-1, :-1]
    steps = (grid[:, 1:, :-1, :-1] - here, grid[:, :-1, 1:, :-1] - here, grid[:, :-1, :-1, 1:] - here)
    squares = steps[0].square() + steps[1].square() + steps[2].square()
    # The root of 0 has no gradient.
    return (squares + 1e-8).sqrt().mean()


def voxel_optimizers(voxels: Voxels, *, fused: bool = False) -> Optimizers:
    """Return an Adam per tensor; ``fused`` updates each in one kernel."""
    config = voxels.config
    return {
        name: RunAdam([value], lr=_rate(config, name), betas=config.adam_betas, eps=1e-15, fused=fused or None)
        for name, value in voxels.params.items()
    }


def require_voxels(config: VoxelsConfig, state: dict[str, Any]) -> None:
    """Raise UserError unless a scene's ``state`` holds a grid of this config, of finite numbers."""
    params = part_of(state, "voxels/params", dict)
    require_names(params, ("density", "colour"), "voxels/params")
    side = len(part_of(params, "density", Tensor))
    if side not in config.resolutions:
        raise misfit(f"voxels/params is not that of a grid of {' or '.join(map(str, config.resolutions))} vertices")
    channels = 3 * (config.sh_degree + 1) ** 2
    require_tensor(params["density"], "voxels/params/density", (side, side, side))
    require_tensor(part_of(params, "colour", Tensor), "voxels/params/colour", (channels, side, side, side))
    cells = config.occupancy_resolution
    require_tensor(part_of(state, "voxels/occupancy", Tensor), "voxels/occupancy", (cells, cells, cells))
    count_of(state, "voxels/steps_since_update", most=config.occupancy_every - 1)


def restore_voxels(config: RunConfig, state: dict[str, Any], *, device: torch.device) -> Voxels:
    """Return the grid of a scene's ``state``, for rendering; UserError for a state that does not fit the config."""
    require_voxels(config.voxels, state)
    voxels = Voxels(config.voxels, device=device)
    voxels.load_state(state["voxels"])
    return voxels


def _rate(config: VoxelsConfig, name: str) -> float:
    return config.density_lr if name == "density" else config.colour_lr


ENTRY = RepresentationEntry(noun="a voxel grid", make=VoxelScene, restore=restore_voxels, casts_rays=True)
