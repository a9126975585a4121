"""gsplat's two densification strategies with bounds on the count, and with pruning for distillation.

gsplat's code grows, moves and removes; the classes here choose which Gaussians.

Letters: N Gaussians.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from gsplat import DefaultStrategy, MCMCStrategy
from gsplat.strategy.ops import relocate, remove
from torch import Tensor

from sdi_gs.representations.optimizers import Optimizers
from sdi_gs.representations.shape_guards import floaters

Params = dict[str, torch.nn.Parameter] | torch.nn.ParameterDict


@dataclass(frozen=True, kw_only=True)
class PruneRule:
    """Which Gaussians are pruned, and how many are kept at least."""

    min_gaussians: int = 500
    opacity: float = 0.02
    """Opacity below which a Gaussian is pruned."""
    scale3d: float | None = None
    """Longest axis in scene units above which it is pruned; None for no limit."""
    component: float | None = None
    """Share of the summed opacity below which a separate piece is pruned; None for no limit."""

    def prune_mask(self, params: Params) -> Tensor:  # [N] bool
        """Mark the Gaussians to prune; if fewer than ``min_gaussians`` would be left, the most opaque stay."""
        opacity = torch.sigmoid(params["opacities"].flatten())
        width = torch.exp(params["scales"]).amax(dim=-1)
        mask = opacity < self.opacity
        if self.scale3d is not None:
            mask |= width > self.scale3d
        if self.component is not None:
            mask |= floaters(params["means"], width, torch.where(mask, 0.0, opacity), self.component)
        spare = max(len(opacity) - self.min_gaussians, 0)
        if int(mask.sum()) > spare:
            worst = torch.where(mask, opacity, torch.inf).topk(spare, largest=False).indices
            mask = torch.zeros_like(mask)
            mask[worst] = True
        return mask


@dataclass
class BoundedStrategy(DefaultStrategy):
    """gsplat's default strategy between a floor and a cap, by threshold or by rank of the screen-space gradient."""

    max_gaussians: int = 20_000
    grow_stop_iter: int = 2**62
    """No growth from this step on; pruning goes on to ``refine_stop_iter``."""
    grow_share: float | None = None
    """Share of the Gaussians that grow in one refinement, by gradient rank; None to use ``grow_grad2d``."""
    prune: PruneRule = field(default_factory=PruneRule)

    @torch.no_grad()
    def _update_state(self, params: Params, state: dict[str, Any], info: dict[str, Any], packed: bool = False) -> None:
        """Sum the screen-space gradients of the visible Gaussians, and count the cameras that see each.

        The sums equal gsplat's, which selects the visible by index and so makes the host wait for the GPU.
        """
        gradients, visible = info["means2d"].grad.clone(), (info["radii"] > 0).all(dim=-1)
        gradients[..., 0] *= info["width"] / 2.0 * info["n_cameras"]
        gradients[..., 1] *= info["height"] / 2.0 * info["n_cameras"]
        for name in ("grad2d", "count"):
            if state[name] is None:
                state[name] = torch.zeros(len(params["means"]), device=gradients.device)
        # Camera by camera, in gsplat's order of summation; counts are exact in any order.
        for norms in torch.where(visible, gradients.norm(dim=-1), 0.0):
            state["grad2d"] += norms
        state["count"] += visible.sum(dim=0)

    @torch.no_grad()
    def _grow_gs(self, params: Params, optimizers: Optimizers, state: dict[str, Any], step: int) -> tuple[int, int]:
        """Grow the Gaussians of the largest gradients, as many as fit under the cap."""
        count = len(params["means"])
        room = self.max_gaussians - count
        if self.grow_share is not None:
            room = min(room, math.ceil(self.grow_share * count))
        if room <= 0 or step >= self.grow_stop_iter:
            return 0, 0
        configured = self.grow_grad2d
        # By rank, every Gaussian with a gradient may grow.
        self.grow_grad2d = configured if self.grow_share is None else 0.0
        gradients = state["grad2d"] / state["count"].clamp_min(1)
        if room < count:
            # Strictly-greater comparison in gsplat: the value after the last that fits is the threshold.
            self.grow_grad2d = max(self.grow_grad2d, float(gradients.topk(room + 1).values[-1]))
        grown = super()._grow_gs(params, optimizers, state, step)
        self.grow_grad2d = configured
        return grown

    @torch.no_grad()
    def _prune_gs(self, params: Params, optimizers: Optimizers, state: dict[str, Any], step: int) -> int:
        """Remove the Gaussians of ``prune``, large ones from the start on (gsplat waits for an opacity reset)."""
        prune_mask = self.prune.prune_mask(params)
        count = int(prune_mask.sum())
        if count > 0:
            remove(params=params, optimizers=optimizers, state=state, mask=prune_mask)
        return count


@dataclass
class GuardedMCMC(MCMCStrategy):
    """gsplat's MCMC strategy, which moves the Gaussians of ``prune`` instead of removing them."""

    grow_stop_iter: int = 2**62
    """No growth from this step on; relocation goes on to ``refine_stop_iter``."""
    prune: PruneRule = field(default_factory=PruneRule)
    step: int = -1
    """Current step, which gsplat does not pass to ``_add_new_gs``."""

    @torch.no_grad()
    def _relocate_gs(self, params: Params, optimizers: Optimizers, binoms: Tensor) -> int:
        """Move the Gaussians of ``prune`` to opaque ones, of which at least ``min_gaussians`` stay."""
        prune_mask = self.prune.prune_mask(params)
        count = int(prune_mask.sum())
        if count > 0:
            # gsplat samples by opacity, and fails if all opacities have underflowed to 0.
            params["opacities"].clamp_min_(-30.0)
            relocate(params, optimizers, {}, mask=prune_mask, binoms=binoms, min_opacity=self.min_opacity)
        return count

    @torch.no_grad()
    def _add_new_gs(self, params: Params, optimizers: Optimizers, binoms: Tensor) -> int:
        """Add 5 % more, up to the cap, before ``grow_stop_iter``."""
        return super()._add_new_gs(params, optimizers, binoms) if self.step < self.grow_stop_iter else 0
