"""What a run optimises, with all that moves it: parameters, optimisers, terms of the loss of its own, growth.

The trainer drives either kind by the same calls: ``render``, ``losses``, ``update``, ``state``.

Letters: B cameras, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, assert_never

import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.contracts import RenderOutput
from sdi_gs.representations.densify import Densifier
from sdi_gs.representations.gaussians import Gaussians, gaussian_optimizers, scaled_rates, set_learning_rates
from sdi_gs.representations.ngp.ngp import Ngp, NgpRender, ngp_optimizers
from sdi_gs.representations.update import update_gaussians
from sdi_gs.representations.view_groups import render_in_groups
from sdi_gs.runs.loading import require_same_kind
from sdi_gs.settings.gaussians import GaussiansConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.training.initial_cloud import initial_gaussians
from sdi_gs.training.losses import compactness_loss, fog_loss, needle_loss


class GaussianScene:
    """A cloud with its optimisers and its densification."""

    def __init__(
        self,
        config: RunConfig,
        *,
        generator: torch.Generator,
        device: torch.device,
        gaussians: Gaussians | None = None,
    ) -> None:
        """``gaussians`` stand in for the config's initial cloud, whose file a resumed run can do without.

        Raises UserError for an initial cloud that cannot be had, or that is over the cap.
        """
        self.config = config
        self.device = device
        if gaussians is None:
            gaussians = initial_gaussians(config.gaussians, generator=generator, device=device)
        self.gaussians = gaussians
        self.optimizers = gaussian_optimizers(self.gaussians, self._rates, fused=config.compute.fused_adam)
        self.densifier = Densifier(config.densify, config.steps)
        self.densifier.require_room(self.gaussians)

    @property
    def representation(self) -> Gaussians:
        """What renders."""
        return self.gaussians

    @property
    def num_gaussians(self) -> int:
        """How many there are."""
        return len(self.gaussians)

    def render(
        self,
        cameras: CameraBatch,  # B of them
        background: Tensor,  # [B, 3] in [0, 1]
        *,
        progress: float,
        generator: torch.Generator,
    ) -> RenderOutput:
        """A training render; ``progress`` is the finished share of the run."""
        return render_in_groups(self.gaussians, cameras, background, self.config.compute.views_at_once)

    def losses(self, render: RenderOutput, cameras: CameraBatch, progress: float) -> dict[str, Tensor]:
        """The weighted terms that look at the cloud and not at the prior."""
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
        return terms

    def update(
        self,
        loss: Tensor,  # []
        render: RenderOutput,  # that the loss came from
        *,
        step: int,
        generator: torch.Generator,
        timestep_fraction: float | None = None,
        check_gradients: Callable[[], None] = lambda: None,
    ) -> None:
        """Backward, optimise, densify; ``check_gradients`` may raise before any parameter moves.

        ``timestep_fraction`` is the diffusion's t over its length, None where there is no diffusion.
        """
        update_gaussians(
            self.gaussians,
            self.optimizers,
            self.densifier,
            self._rates,
            loss=loss,
            meta=render.meta,
            step=step,
            num_steps=self.config.steps,
            generator=generator,
            timestep_fraction=timestep_fraction,
            check_gradients=check_gradients,
        )

    def finalize(self) -> None:
        """After the last step there is nothing left to do."""

    def gradients(self) -> dict[str, Tensor]:
        """The gradients that the optimisers are about to use, by name."""
        return {name: value.grad for name, value in self.gaussians.params.items() if value.grad is not None}

    def drop_gradients(self) -> None:
        """Forget the gradients of a step that came to nothing."""
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)

    def update_config(self, config: RunConfig) -> None:
        """Go on at the learning rates of a config that changed while training."""
        self.config = config
        set_learning_rates(self.optimizers, self._rates)

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, as nested dicts of tensors and numbers."""
        return {
            "gaussians": {name: value.detach() for name, value in self.gaussians.params.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "densify": self.densifier.state,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what ``state`` returned."""
        self.gaussians = Gaussians({name: value.to(self.device) for name, value in state["gaussians"].items()})
        self.optimizers = gaussian_optimizers(self.gaussians, self._rates, fused=self.config.compute.fused_adam)
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.densifier.state = {
            name: value.to(self.device) if isinstance(value, Tensor) else value
            for name, value in state["densify"].items()
        }

    @property
    def _rates(self) -> GaussiansConfig:
        """The cloud's settings with the learning rates now in force."""
        return scaled_rates(self.config.gaussians, self.config.learning_rate_scale)


class NgpScene:
    """A hash-grid field with its optimisers, its schedules and its regularisers."""

    num_gaussians = 0
    """A field has none."""

    def __init__(self, config: RunConfig, *, generator: torch.Generator, device: torch.device) -> None:
        self.config = config
        self.device = device
        self.ngp = Ngp(config.ngp, generator=generator, device=device)
        self.optimizers = ngp_optimizers(self.ngp, fused=config.compute.fused_adam)
        self._rates = {name: group.param_groups[0]["lr"] for name, group in self.optimizers.items()}
        self._before_render = self.ngp.state()
        self.update_config(config)

    @property
    def representation(self) -> Ngp:
        """What renders."""
        return self.ngp

    def render(
        self,
        cameras: CameraBatch,  # B of them
        background: Tensor,  # [B, 3] in [0, 1]
        *,
        progress: float,
        generator: torch.Generator,
    ) -> NgpRender:
        """A training render of the field as ``progress``, the finished share of the run, would have it."""
        self._before_render = self.ngp.state()
        self.ngp.before_step(progress, generator)
        return self.ngp.render_for_training(
            cameras,
            background,
            progress=progress,
            generator=generator,
            views_at_once=self.config.compute.views_at_once,
            rays_at_once=self.config.compute.rays_at_once,
        )

    def losses(self, render: RenderOutput, cameras: CameraBatch, progress: float) -> dict[str, Tensor]:
        """The weighted terms that look at the field and not at the prior."""
        assert isinstance(render, NgpRender)
        return self.ngp.regularizers(render, cameras, progress)

    def update(
        self,
        loss: Tensor,  # []
        render: RenderOutput,  # that the loss came from
        *,
        step: int,
        generator: torch.Generator,
        timestep_fraction: float | None = None,
        check_gradients: Callable[[], None] = lambda: None,
    ) -> None:
        """Backward and optimise; ``check_gradients`` may raise before any parameter moves."""
        loss.backward()
        check_gradients()
        for optimizer in self.optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def finalize(self) -> None:
        """After the last step: all levels, and an occupancy grid of what is there now."""
        self.ngp.finalize()

    def gradients(self) -> dict[str, Tensor]:
        """The gradients that the optimisers are about to use, by name."""
        return {name: value.grad for name, value in self.ngp.parameters().items() if value.grad is not None}

    def drop_gradients(self) -> None:
        """Forget a step that came to nothing: its gradients, and what its render brought up to date."""
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        self.ngp.load_state(self._before_render)

    def update_config(self, config: RunConfig) -> None:
        """Go on at the learning rates of a config that changed while training."""
        self.config = config
        for name, optimizer in self.optimizers.items():
            optimizer.param_groups[0]["lr"] = config.learning_rate_scale * self._rates[name]

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, as nested dicts of tensors and numbers."""
        optimizers = {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}
        return {"ngp": self.ngp.state(), "optimizers": optimizers}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what ``state`` returned."""
        self.ngp.load_state(state["ngp"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])


Scene = GaussianScene | NgpScene


def make_scene(
    config: RunConfig,
    *,
    generator: torch.Generator,
    device: torch.device,
    saved: dict[str, Any] | None = None,
) -> Scene:
    """The configured scene at its start, or ready for the ``saved`` state that it will load.

    Raises UserError for an initial cloud that cannot be had, or is over the cap, and for a state of the other kind.
    """
    if saved is not None:
        require_same_kind(config, saved)
    match config.representation:
        case "gaussians":
            gaussians = Gaussians(saved["gaussians"]) if saved is not None else None
            return GaussianScene(config, generator=generator, device=device, gaussians=gaussians)
        case "ngp":
            return NgpScene(config, generator=generator, device=device)
        case _:
            assert_never(config.representation)
