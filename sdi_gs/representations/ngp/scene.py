"""A hash-grid field as a run optimises it: the field, optimisers, regularisers and schedules.

Letters: B cameras, H W pixels.
"""

from __future__ import annotations

from typing import Any, assert_never

import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.contracts import RenderOutput, StartScene
from sdi_gs.representations.adam import RunAdam
from sdi_gs.representations.catalog import RepresentationEntry
from sdi_gs.representations.ngp.backends import configured_backend
from sdi_gs.representations.ngp.ngp import Ngp
from sdi_gs.representations.ngp.regularizers import (
    convexity_loss,
    opaqueness_loss,
    orientation_loss,
    published_convexity_loss,
    scheduled,
    sparsity_loss,
    z_variance_loss,
)
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
from sdi_gs.representations.saved_state import count_of, misfit, part_of, require_tensor
from sdi_gs.settings.ngp import NgpConfig, NgpLossConfig
from sdi_gs.settings.run import RunConfig


class NgpScene:
    """A hash-grid field with its optimisers, schedules and regularisers."""

    def __init__(
        self,
        config: RunConfig,
        *,
        generator: torch.Generator,
        device: torch.device,
        saved: dict[str, Any] | None = None,
        start: StartScene | None = None,
    ) -> None:
        """Build a new field, whose tensors ``load_state`` fills in if there is a ``saved`` state.

        Raises ValueError for a ``start``: fields always start anew.
        """
        if start is not None:
            raise ValueError("a field does not start from another run's scene")
        self.config = config
        self.device = device
        self.ngp = Ngp(config.ngp, generator=generator, device=device)
        self.optimizers = ngp_optimizers(self.ngp, fused=config.compute.fused_adam)
        self._rates = {name: group.param_groups[0]["lr"] for name, group in self.optimizers.items()}
        self._before_render = self.ngp.state()
        self.update_config(config)

    @property
    def representation(self) -> Ngp:
        """The field as it is now."""
        return self.ngp

    def render(
        self,
        cameras: CameraBatch,  # B of them
        background: Tensor,  # [B, 3] in [0, 1]
        *,
        progress: float,
        generator: torch.Generator,
    ) -> FieldRender:
        """Bring levels and occupancy up to date with ``progress``, then render for training."""
        self._before_render = self.ngp.state()
        self.ngp.before_step(progress, generator, num_steps=self.config.steps)
        return self.ngp.render_for_training(
            cameras,
            background,
            progress=progress,
            generator=generator,
            views_at_once=self.config.compute.views_at_once,
            rays_at_once=self.config.compute.rays_at_once,
        )

    def losses(self, render: RenderOutput, cameras: CameraBatch, progress: float) -> dict[str, Tensor]:
        """Return the weighted regularisers of a render of ``render``."""
        assert isinstance(render, FieldRender)
        return ngp_losses(self.config.ngp.losses, render, cameras, progress)

    def backward(self, loss: Tensor, render: RenderOutput, *, step: int) -> None:
        """Compute the gradients of all parameters."""
        loss.backward()

    def gradients(self) -> dict[str, Tensor]:
        """Return the gradients of all parameters that have one, by name."""
        return gradients_of(self.ngp.parameters())

    def drop_gradients(self) -> None:
        """Clear the gradients of a step that failed, and undo what its render brought up to date."""
        clear_gradients(self.optimizers)
        self.ngp.load_state(self._before_render)

    def update(
        self,
        render: RenderOutput,
        *,
        step: int,
        generator: torch.Generator,
        timestep_fraction: float | None = None,
    ) -> None:
        """Take one step of every optimiser, the field's at the rate of this share of the run."""
        field = self.optimizers["field"].param_groups[0]
        field["lr"] = self.config.learning_rate_scale * geometry_rate(
            self.config.ngp, self.config.scheduled(step) / max(self.config.steps - 1, 1)
        )
        take_step(self.optimizers)

    def finalize(self) -> None:
        """Turn on all levels, and recompute the occupancy grid."""
        self.ngp.finalize()

    def update_config(self, config: RunConfig) -> None:
        """Take over the learning rates and the ways of computing of a config that changed during the run."""
        self.config = config
        self.ngp.field.backend = configured_backend(config.compute.field_kernels, self.device)
        for name, optimizer in self.optimizers.items():
            optimizer.param_groups[0]["lr"] = config.learning_rate_scale * self._rates[name]

    def state(self) -> dict[str, Any]:
        """Return everything that the next step depends on, as nested dicts of tensors and numbers."""
        return {"ngp": self.ngp.state(), "optimizers": states_of(self.optimizers)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what ``state`` returned; UserError, with everything as it was, for a state that does not fit."""
        require_field(self.ngp, state)
        saved = require_states(state, self.optimizers)
        self.ngp.load_state(state["ngp"])
        load_states(self.optimizers, saved)


def geometry_rate(config: NgpConfig, progress: float) -> float:
    """Return the field's learning rate at a share of the run: exponential from the first to the last."""
    first, last = config.geometry_lr, config.geometry_lr_final
    return first if last is None else first * (last / first) ** progress


def ngp_losses(
    weights: NgpLossConfig,
    render: FieldRender,  # of B views, for training
    cameras: CameraBatch,
    progress: float,
) -> dict[str, Tensor]:
    """Return the weighted regularisers that apply at a share ``progress`` of the run."""
    sparsity = scheduled(weights.sparsity, weights.sparsity_final, weights.sparsity_end, progress)
    convexity = scheduled(weights.convexity, weights.convexity_final, weights.convexity_end, progress)
    terms = {}
    if weights.orientation > 0.0:
        assert render.sample_normals is not None
        hit = (render.alpha.detach() > 0.0).sum()
        terms["orientation"] = weights.orientation * orientation_loss(
            render.sample_weights, render.sample_normals, render.sample_directions, hit
        )
    if sparsity > 0.0:
        terms["sparsity"] = sparsity * sparsity_loss(render.alpha)
    if weights.opaqueness > 0.0:
        terms["opaqueness"] = weights.opaqueness * opaqueness_loss(render.alpha)
    if weights.z_variance > 0.0:
        terms["z_variance"] = weights.z_variance * z_variance_loss(render.z_variance, render.alpha)
    if convexity > 0.0:
        assert render.normals is not None
        match weights.convexity_form:
            case "camera":
                dents = convexity_loss(render.normals, cameras.camera_from_world)
            case "published":
                dents = published_convexity_loss(render.normals, render.alpha)
            case _:
                assert_never(weights.convexity_form)
        terms["convexity"] = convexity * dents
    return terms


def ngp_optimizers(ngp: Ngp, *, fused: bool = False) -> Optimizers:
    """Return one Adam for the field and one for the environment, if there is one (published rates).

    ``fused`` updates each parameter in one kernel.
    """
    config = ngp.config
    groups = {"field": (list(ngp.field.params.values()), config.geometry_lr)}
    if ngp.environment is not None:
        groups["environment"] = (list(ngp.environment.params.values()), config.background_lr)
    return {
        name: RunAdam(params, lr=rate, betas=config.adam_betas, eps=1e-15, fused=fused or None)
        for name, (params, rate) in groups.items()
    }


def require_field(ngp: Ngp, state: dict[str, Any]) -> None:
    """Raise UserError unless a scene's ``state`` holds a field like this one, of finite numbers."""
    side = ngp.config.occupancy_resolution
    params = part_of(state, "ngp/params", dict)
    if {name: tuple(getattr(value, "shape", ())) for name, value in params.items()} != {
        name: tuple(value.shape) for name, value in ngp.parameters().items()
    }:
        raise misfit("ngp/params is not that of a field of this size")
    for name in params:
        require_tensor(part_of(params, name, Tensor), f"ngp/params/{name}", tuple(params[name].shape))
    require_tensor(part_of(state, "ngp/occupancy", Tensor), "ngp/occupancy", (side, side, side))
    if count_of(state, "ngp/num_levels", most=ngp.config.grid.num_levels) == 0:
        raise misfit("ngp/num_levels must be at least 1")
    count_of(state, "ngp/steps_since_update", most=ngp.config.occupancy_every - 1)


def restore_ngp(config: RunConfig, state: dict[str, Any], *, device: torch.device) -> Ngp:
    """Return the field of a scene's ``state``, for rendering; UserError for a state that does not fit the config."""
    ngp = Ngp(config.ngp, generator=torch.Generator(device).manual_seed(0), device=device)
    require_field(ngp, state)
    ngp.load_state(state["ngp"])
    return ngp


ENTRY = RepresentationEntry(noun="a field", make=NgpScene, restore=restore_ngp, casts_rays=True)
