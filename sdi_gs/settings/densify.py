"""When Gaussians are added and removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from sdi_gs.settings.bounds import INTERVAL, SHARE, Range, check_settings

Strategy = Literal["share", "threshold", "mcmc"]

_COUNT = Range(1, 100_000_000)
_THRESHOLD = Range(0.0, 1e9)


@dataclass(frozen=True, kw_only=True)
class DensifyConfig:
    """When Gaussians are added and removed; counts of steps are shares of the run."""

    enabled: bool = True
    """Whether to refine at all."""
    strategy: Strategy = "share"
    """Which Gaussians grow: those of the largest gradients whatever its unit (share), those above a gradient
    (threshold, gsplat's DefaultStrategy), or samples of the opacity while transparent ones are moved (mcmc, gsplat's
    MCMCStrategy)."""
    max_gaussians: Annotated[int, _COUNT] = 20_000
    """Hard cap on the count, the setting to change first."""
    min_gaussians: Annotated[int, _COUNT] = 500
    """No pruning that would leave fewer than this."""
    start: Annotated[float, SHARE] = 0.1
    """First refinement, as a share of the run."""
    stop: Annotated[float, SHARE] = 0.6
    """Last growth, as a share of the run (LucidDreamer's 3000 of 5000 steps)."""
    prune_stop: Annotated[float | None, SHARE] = None
    """Last pruning, as a share of the run; None for ``stop``, 1 for a prune-only phase to the end (HumanGaussian)."""
    every: Annotated[int, INTERVAL] = 50
    """Steps between refinements."""
    grow_share: Annotated[float, SHARE] = 0.05
    """Strategy share: share of the Gaussians that are cloned or split in one refinement, those of the largest
    gradients; 0 for pruning alone (docs/densification.md compares)."""
    grow_grad2d: Annotated[float, _THRESHOLD] = 2e-4
    """Strategy threshold: mean screen-space gradient above which a Gaussian is cloned or split (gsplat)."""
    grow_scale3d: Annotated[float, _THRESHOLD] = 0.02
    """Size in scene units above which it is split rather than cloned."""
    mcmc_noise_lr: Annotated[float, _THRESHOLD] = 5e3
    """Strategy mcmc: noise on the centres, over their learning rate and their covariance (gsplat's 5e5 goes with rates
    and sizes in the units of a whole scene)."""
    prune_opacity: Annotated[float, SHARE] = 0.02
    """Opacity below which a Gaussian is removed; mcmc moves it to an opaque one instead."""
    prune_scale3d: Annotated[float | None, Range(0.0, 1e6, low_open=True)] = 0.3
    """Size in scene units above which it is removed; None for never."""
    prune_component: Annotated[float | None, SHARE] = None
    """Share of all opacity below which a separate piece is removed as a floater; None for never."""
    reset_opacity_at: Annotated[float | None, SHARE] = None
    """Share of the run at which all opacities are lowered once, to twice ``prune_opacity``; None for never."""
    reset_opacity_every: Annotated[int | None, INTERVAL] = None
    """Steps between such resets while the cloud grows (300 in LucidDreamer); None for never."""
    reset_min_timestep: Annotated[float, SHARE] = 0.5
    """No reset at a timestep below this share of the diffusion's length, from which the object cannot recover."""

    def __post_init__(self) -> None:
        check_settings(self)
        if self.start > self.stop:
            raise ValueError(f"start must be at most stop, got {self.start} and {self.stop}")
        if self.prune_stop is not None and self.prune_stop < self.stop:
            raise ValueError(f"prune_stop must be at least stop, got {self.prune_stop} and {self.stop}")
        if self.min_gaussians > self.max_gaussians:
            raise ValueError(
                f"min_gaussians must be at most max_gaussians, got {self.min_gaussians} and {self.max_gaussians}"
            )
