"""Densification over a run: its schedule, its randomness, and a working opacity reset.

gsplat 1.5.3 never resets opacities (an operator-precedence slip, gsplat issue #797) and draws from torch's global
generator. Both are handled here; ``sdi_gs.representations.strategies`` chooses the Gaussians that grow and go.
"""

from __future__ import annotations

import warnings
from typing import Any, assert_never

import torch
from gsplat.strategy.ops import reset_opa
from torch import Tensor

from sdi_gs.errors import UserError
from sdi_gs.representations.gaussians import Gaussians
from sdi_gs.representations.optimizers import Optimizers
from sdi_gs.representations.relocation import device_dispatch
from sdi_gs.representations.saved_state import misfit, part_of, require_names, require_tensor
from sdi_gs.representations.strategies import BoundedStrategy, GuardedMCMC, PruneRule
from sdi_gs.settings.densify import DensifyConfig


class Densifier:
    """Runs a densification strategy over a run; ``state`` holds plain tensors that a checkpoint can save."""

    def __init__(self, config: DensifyConfig, num_steps: int) -> None:
        self.config = config
        self._num_steps = num_steps
        self._reset_step = None if config.reset_opacity_at is None else int(config.reset_opacity_at * num_steps)
        self._strategy = _strategy_of(config, num_steps)
        self.state: dict[str, Any] = self._strategy.initialize_state()

    def require_room(self, gaussians: Gaussians) -> None:
        """Raise UserError for more Gaussians at the start than the cap allows."""
        count, cap = len(gaussians), self.config.max_gaussians
        if self.config.enabled and count > cap:
            raise UserError(
                f"the run starts with {count} Gaussians, more than densify.max-gaussians {cap}: raise that cap, "
                "start with fewer, or switch densification off (--densify.no-enabled)"
            )

    def require_state(self, saved: dict[str, Any], gaussians: Gaussians) -> None:
        """Raise UserError unless ``saved`` is a state of this strategy for these Gaussians."""
        fresh = self._strategy.initialize_state()
        require_names(saved, fresh, "densify")
        for name, value in fresh.items():
            found = saved[name]
            if isinstance(value, Tensor):
                require_tensor(part_of(saved, name, Tensor), f"densify/{name}", tuple(value.shape))
            elif value is None and found is not None:
                require_tensor(part_of(saved, name, Tensor), f"densify/{name}", (len(gaussians),))
            elif value is not None and found != value:
                raise misfit(f"densify/{name} must be {value}, found {found!r}")

    def before_backward(
        self,
        gaussians: Gaussians,
        optimizers: Optimizers,
        step: int,
        meta: dict[str, Any],
    ) -> None:
        """Retain the gradient of the screen-space means; ``meta`` is the render's."""
        if self.config.enabled:
            self._strategy.step_pre_backward(gaussians.params, optimizers, self.state, step, meta)

    def after_step(
        self,
        gaussians: Gaussians,
        optimizers: Optimizers,
        step: int,
        meta: dict[str, Any],
        generator: torch.Generator,
        *,
        timestep_fraction: float | None = None,
    ) -> None:
        """Refine if the schedule has a refinement at this step; call it after the optimisers' step.

        ``timestep_fraction`` is the diffusion timestep over the number of timesteps; None without diffusion.
        """
        if not self.config.enabled:
            return
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        # gsplat draws from the global generator: seed it from ours and put it back.
        with torch.random.fork_rng(_cuda_devices(gaussians.device)), device_dispatch():
            torch.manual_seed(seed)
            self._refine(gaussians, optimizers, step, meta)
        # Steps after those of the schedule reset nothing.
        if step == self._reset_step != self._num_steps:
            self._warn_if_too_late(step, timestep_fraction)
        elif not self._resets_again(step):
            return
        if not self._too_late(timestep_fraction):
            reset_opa(gaussians.params, optimizers, self.state, value=2.0 * self.config.prune_opacity)

    def _resets_again(self, step: int) -> bool:
        """Return whether one of the resets at equal intervals is due after a step; there are none after growth."""
        every = self.config.reset_opacity_every
        return every is not None and (step + 1) % every == 0 and step + 1 < int(self.config.stop * self._num_steps)

    def _refine(
        self,
        gaussians: Gaussians,
        optimizers: Optimizers,
        step: int,
        meta: dict[str, Any],
    ) -> None:
        match self._strategy:
            case BoundedStrategy() as strategy:
                strategy.step_post_backward(gaussians.params, optimizers, self.state, step, meta, packed=False)
            case GuardedMCMC() as strategy:
                strategy.step = step
                rate = optimizers["means"].param_groups[0]["lr"]
                with torch.no_grad():
                    strategy.step_post_backward(gaussians.params, optimizers, self.state, step, meta, lr=rate)
            case _:
                assert_never(self._strategy)

    def _too_late(self, timestep_fraction: float | None) -> bool:
        """Return whether the object could not recover from a reset at a timestep."""
        return timestep_fraction is not None and timestep_fraction < self.config.reset_min_timestep

    def _warn_if_too_late(self, step: int, timestep_fraction: float | None) -> None:
        """Warn of the one reset that was asked for and is left out."""
        if self._too_late(timestep_fraction):
            warnings.warn(
                f"the opacity reset at step {step + 1} is left out: t = {timestep_fraction:.2f} is below "
                f"densify.reset-min-timestep {self.config.reset_min_timestep:.2f}, too late to recover from; "
                "lower densify.reset-opacity-at",
                stacklevel=3,
            )


def _cuda_devices(device: torch.device) -> list[torch.device]:
    """Return the devices whose generator ``fork_rng`` saves; naming them avoids torch's warning about several cards."""
    return [device] if device.type == "cuda" else []


def _strategy_of(config: DensifyConfig, num_steps: int) -> BoundedStrategy | GuardedMCMC:
    grow_stop = int(config.stop * num_steps)
    stop = grow_stop if config.prune_stop is None else int(config.prune_stop * num_steps)
    start = int(config.start * num_steps)
    prune = PruneRule(
        min_gaussians=config.min_gaussians,
        opacity=config.prune_opacity,
        scale3d=config.prune_scale3d,
        component=config.prune_component,
    )
    match config.strategy:
        case "share" | "threshold":
            return BoundedStrategy(
                grow_grad2d=config.grow_grad2d,
                grow_scale3d=config.grow_scale3d,
                refine_start_iter=start,
                refine_stop_iter=stop,
                refine_every=config.every,
                # Never: the reset is ours.
                reset_every=2**62,
                max_gaussians=config.max_gaussians,
                grow_stop_iter=grow_stop,
                grow_share=config.grow_share if config.strategy == "share" else None,
                prune=prune,
            )
        case "mcmc":
            return GuardedMCMC(
                cap_max=config.max_gaussians,
                noise_lr=config.mcmc_noise_lr,
                refine_start_iter=start,
                refine_stop_iter=stop,
                refine_every=config.every,
                min_opacity=config.prune_opacity,
                grow_stop_iter=grow_stop,
                prune=prune,
            )
        case _:
            assert_never(config.strategy)
