"""Densification by gsplat's ``DefaultStrategy``, with what it lacks: a cap, a floor and a working opacity reset.

gsplat 1.5.3 never resets opacities (an operator-precedence slip, gsplat issue #797), bounds the count on neither
side, and draws from torch's global generator. All three are handled here, so the strategy itself stays untouched.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from gsplat import DefaultStrategy
from gsplat.strategy.ops import remove, reset_opa

from sdi_gs.representations.config import DensifyConfig
from sdi_gs.representations.gaussians import Gaussians


@dataclass
class BoundedStrategy(DefaultStrategy):
    """gsplat's strategy between a floor and a cap on the count."""

    max_gaussians: int = 20_000
    min_gaussians: int = 500

    @torch.no_grad()
    def _grow_gs(
        self,
        params: dict[str, torch.nn.Parameter] | torch.nn.ParameterDict,
        optimizers: dict[str, torch.optim.Optimizer],
        state: dict[str, Any],
        step: int,
    ) -> tuple[int, int]:
        """Grow the Gaussians of largest gradient that still fit under the cap."""
        room = self.max_gaussians - len(params["means"])
        if room <= 0:
            return 0, 0
        gradients = state["grad2d"] / state["count"].clamp_min(1)
        configured = self.grow_grad2d
        if room < len(gradients):
            # Strictly-greater comparison in gsplat: the value after the last that fits is the threshold.
            self.grow_grad2d = max(configured, float(gradients.topk(room + 1).values[-1]))
        grown = super()._grow_gs(params, optimizers, state, step)
        self.grow_grad2d = configured
        return grown

    @torch.no_grad()
    def _prune_gs(
        self,
        params: dict[str, torch.nn.Parameter] | torch.nn.ParameterDict,
        optimizers: dict[str, torch.optim.Optimizer],
        state: dict[str, Any],
        step: int,
    ) -> int:
        """Remove the transparent and the huge from the start on, but never below the floor."""
        opacity = torch.sigmoid(params["opacities"].flatten())
        size = torch.exp(params["scales"]).amax(dim=-1)
        doomed = (opacity < self.prune_opa) | (size > self.prune_scale3d * state["scene_scale"])
        spare = max(len(opacity) - self.min_gaussians, 0)
        count = int(doomed.sum())
        if count > spare:
            # Keep the most opaque of the doomed.
            worst = torch.where(doomed, opacity, torch.inf).topk(spare, largest=False).indices
            doomed = torch.zeros_like(doomed)
            doomed[worst] = True
            count = spare
        if count > 0:
            remove(params=params, optimizers=optimizers, state=state, mask=doomed)
        return count


class Densifier:
    """Drives the strategy over a run; its state is plain tensors that a checkpoint can hold."""

    def __init__(self, config: DensifyConfig, num_steps: int) -> None:
        self.config = config
        self._reset_step = None if config.reset_opacity_at is None else int(config.reset_opacity_at * num_steps)
        self._strategy = BoundedStrategy(
            prune_opa=config.prune_opacity,
            grow_grad2d=config.grow_grad2d,
            grow_scale3d=config.grow_scale3d,
            prune_scale3d=config.prune_scale3d,
            refine_start_iter=int(config.start * num_steps),
            refine_stop_iter=int(config.stop * num_steps),
            refine_every=config.every,
            reset_every=2**62,
            max_gaussians=config.max_gaussians,
            min_gaussians=config.min_gaussians,
        )
        self.state: dict[str, Any] = self._strategy.initialize_state(scene_scale=1.0)

    def before_backward(
        self,
        gaussians: Gaussians,
        optimizers: dict[str, torch.optim.Optimizer],
        step: int,
        meta: dict[str, Any],
    ) -> None:
        """Keep the gradient of the screen-space means."""
        if self.config.enabled:
            self._strategy.step_pre_backward(gaussians.params, optimizers, self.state, step, meta)

    def after_step(
        self,
        gaussians: Gaussians,
        optimizers: dict[str, torch.optim.Optimizer],
        step: int,
        meta: dict[str, Any],
        generator: torch.Generator,
    ) -> None:
        """Refine where the schedule says so; call it after the optimisers have stepped."""
        if not self.config.enabled:
            return
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        # gsplat's split draws from the global generator: seed it from ours and put it back.
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self._strategy.step_post_backward(gaussians.params, optimizers, self.state, step, meta, packed=False)
        if step == self._reset_step:
            reset_opa(gaussians.params, optimizers, self.state, value=2.0 * self.config.prune_opacity)
