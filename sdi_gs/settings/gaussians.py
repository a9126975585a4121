"""The initial cloud, its learning rates and its growth; free of torch for the command line's sake."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import tyro

LEARNING_RATES = ("means_lr", "means_lr_final", "scales_lr", "quats_lr", "opacities_lr", "sh0_lr")

InitialCloud = Literal["ball", "shell", "splats", "points", "mesh", "run"]
Axes = Literal["world", "viewer", "y-up"]
Strategy = Literal["share", "threshold", "mcmc"]

MAX_INITIAL = 10_000_000
"""No cloud starts with more Gaussians; ten million take 10 GB with their gradients and Adam's averages."""

LEARNING_RATES = ("means_lr", "means_lr_final", "scales_lr", "quats_lr", "opacities_lr", "sh0_lr")


@dataclass(frozen=True, kw_only=True)
class GaussiansConfig:
    """The initial cloud and how fast each of its parameters learns."""

    init: Annotated[InitialCloud | None, tyro.conf.arg(aliases=("--init",))] = None
    """Where the Gaussians start: a grey ball or sphere, what a file holds (splats, points, a mesh's surface), or a run.

    None for a ball or, with ``init_from``, for what that is seen to be."""
    init_from: Annotated[str | None, tyro.conf.arg(aliases=("--init-from",), metavar="FILE|RUN")] = None
    """A .ply of splats or points, any mesh that trimesh reads, or the folder of a run: its splats, or its field."""
    init_axes: Axes | None = None
    """Axes of the file: z up and front +x (world), RDF as in exported splats (viewer), or y up and front +z (y-up).

    None for what is usual: viewer for splats, world for points, y-up for a mesh (glTF)."""
    init_fit: bool | None = None
    """Whether a file's cloud is centred and scaled into ``initial_radius``; None: points and meshes are, splats not."""
    num_initial: int = 6000
    """Gaussians at the start (text-to-3D systems use 4 096 to 100 000); a file of splats or points brings its own."""
    initial_radius: float = 0.8
    """Radius of the ball they fill uniformly, scene units (0.5 to 0.8 in text-to-3D systems)."""
    initial_opacity: float = 0.1
    """Opacity of each at the start (0.1 in DreamGaussian and LucidDreamer); splats bring their own."""
    initial_colour_spread: float = 0.05
    """Standard deviation of the initial colours around grey, in RGB units; files with colours bring their own."""
    axis_ratio_cap: float | None = None
    """Hard limit on the ratio of the longest to the middle axis, kept after every step; None for no limit."""
    means_lr: float = 4e-3
    """Adam step of the centres at the start, scene units."""
    means_lr_final: float = 4e-4
    """Adam step of the centres at the end; exponential in between."""
    scales_lr: float = 1e-2
    """Adam step of the log scales."""
    quats_lr: float = 5e-3
    """Adam step of the quaternions."""
    opacities_lr: float = 5e-2
    """Adam step of the logit opacities (0.05 in DreamGaussian and LucidDreamer)."""
    sh0_lr: float = 3e-2
    """Adam step of the colour coefficients."""
    adam_betas: tuple[float, float] = (0.9, 0.99)
    """Adam's averaging constants (the published SDI config)."""

    def __post_init__(self) -> None:
        if self.init is not None:
            _require_member("init", self.init, InitialCloud)
        if self.init_axes is not None:
            _require_member("init_axes", self.init_axes, Axes)
        if self.init in ("ball", "shell") and self.init_from is not None:
            raise ValueError(
                f"init {self.init} starts from nothing, not from {self.init_from!r}: say splats, points, mesh or run, "
                "or leave init out"
            )
        if self.init not in (None, "ball", "shell") and not self.init_from:
            raise ValueError(f"init {self.init!r} needs init_from, the file or run to start from")
        if not 1 <= self.num_initial <= MAX_INITIAL:
            raise ValueError(f"num_initial must be at least 1 and at most {MAX_INITIAL}, got {self.num_initial}")
        if not 0.0 < self.initial_opacity < 1.0:
            raise ValueError(f"initial_opacity must lie in (0, 1), got {self.initial_opacity}")
        if not 0.0 < self.initial_radius < math.inf:
            raise ValueError(f"initial_radius must be positive, got {self.initial_radius}")
        if self.axis_ratio_cap is not None and not self.axis_ratio_cap >= 1.0:
            raise ValueError(f"axis_ratio_cap must be at least 1, got {self.axis_ratio_cap}")
        for name in LEARNING_RATES:
            if not 0.0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class DensifyConfig:
    """When Gaussians are added and removed; counts of steps are shares of the run."""

    enabled: bool = True
    """Whether to refine at all."""
    strategy: Strategy = "share"
    """What grows: those of the largest gradients whatever its unit (share), those above a gradient (threshold, gsplat's
    DefaultStrategy), or samples of the opacity while transparent ones are moved (mcmc, gsplat's MCMCStrategy)."""
    max_gaussians: int = 20_000
    """Hard cap on the count, the one knob to turn first."""
    min_gaussians: int = 500
    """No pruning that would leave fewer than this."""
    start: float = 0.1
    """First refinement, as a share of the run."""
    stop: float = 0.6
    """Last growth, as a share of the run (LucidDreamer's 3000 of 5000 steps)."""
    prune_stop: float | None = None
    """Last pruning, as a share of the run; None for ``stop``, 1 for a prune-only phase to the end (HumanGaussian)."""
    every: int = 50
    """Steps between refinements."""
    grow_share: float = 0.05
    """Strategy share: how many of the Gaussians are cloned or split in one refinement, those of the largest gradients;
    0 for pruning alone (docs/densification.md compares)."""
    grow_grad2d: float = 2e-4
    """Strategy threshold: mean screen-space gradient above which a Gaussian is cloned or split (gsplat)."""
    grow_scale3d: float = 0.02
    """Size in scene units above which it is split rather than cloned."""
    mcmc_noise_lr: float = 5e3
    """Strategy mcmc: noise on the centres, over their learning rate and their covariance (gsplat's 5e5 goes with rates
    and sizes in the units of a whole scene)."""
    prune_opacity: float = 0.02
    """Opacity below which a Gaussian is removed; mcmc moves it to an opaque one instead."""
    prune_scale3d: float | None = 0.3
    """Size in scene units above which it is removed; None for never."""
    prune_component: float | None = None
    """Share of all opacity below which a separate piece is removed as a floater; None for never."""
    reset_opacity_at: float | None = None
    """Share of the run at which all opacities are lowered once; None for never."""
    reset_min_timestep: float = 0.5
    """No reset at a timestep below this share of the diffusion's length, from where the object cannot recover."""

    def __post_init__(self) -> None:
        _require_member("strategy", self.strategy, Strategy)
        if not 0.0 <= self.start <= self.stop <= 1.0:
            raise ValueError(f"need 0 <= start <= stop <= 1, got {self.start} and {self.stop}")
        if self.prune_stop is not None and not self.stop <= self.prune_stop <= 1.0:
            raise ValueError(f"need stop <= prune_stop <= 1, got {self.stop} and {self.prune_stop}")
        if self.every < 1:
            raise ValueError(f"every must be at least 1, got {self.every}")
        if not 1 <= self.min_gaussians <= self.max_gaussians:
            raise ValueError(
                f"need 1 <= min_gaussians <= max_gaussians, got {self.min_gaussians}, {self.max_gaussians}"
            )
        for name in ("grow_grad2d", "grow_scale3d", "mcmc_noise_lr"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        for name in ("grow_share", "prune_opacity", "prune_component", "reset_opacity_at", "reset_min_timestep"):
            value = getattr(self, name)
            if value is not None and not 0.0 <= value <= 1.0:
                raise ValueError(f"{name} must be 0 to 1, got {value}")
        if self.prune_scale3d is not None and not self.prune_scale3d > 0.0:
            raise ValueError(f"prune_scale3d must be positive, got {self.prune_scale3d}")


def _require_member(name: str, value: str, known: object) -> None:
    if value not in get_args(known):
        raise ValueError(f"{name} must be one of {', '.join(get_args(known))}, got {value!r}")
