"""The configuration of a run: one tree of frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_args

from sdi_gs.errors import UserError
from sdi_gs.settings.backgrounds import BackgroundName
from sdi_gs.settings.cameras import CameraConfig
from sdi_gs.settings.compute import ComputeConfig
from sdi_gs.settings.gaussians import DensifyConfig, GaussiansConfig
from sdi_gs.settings.guidance import GuidanceConfig, ViewPromptsConfig
from sdi_gs.settings.losses import LossConfig
from sdi_gs.settings.ngp import NgpConfig
from sdi_gs.settings.priors import IdealPriorConfig
from sdi_gs.settings.representations import RepresentationName


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """What a run leaves in its folder besides the splats."""

    preview_every: int = 50
    """Steps between preview pictures; 0 for none."""
    checkpoint_every: int = 100
    """Steps between checkpoints; 0 for one at the end only."""
    turntable_frames: int = 48
    """Frames of the turntable; 0 for no video."""
    turntable_size: int = 256
    """Side of the turntable's frames in pixels."""

    def __post_init__(self) -> None:
        if min(self.preview_every, self.checkpoint_every, self.turntable_frames) < 0:
            raise ValueError("preview_every, checkpoint_every and turntable_frames must not be negative")
        if not 16 <= self.turntable_size <= 4096:
            raise ValueError(f"turntable_size must be 16 to 4096, got {self.turntable_size}")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides what a run computes."""

    prompt: str = ""
    """The sentence to turn into an object."""
    negative_prompt: str = ""
    """What the unconditional branch is told instead of nothing."""
    view_prompts: ViewPromptsConfig = field(default_factory=ViewPromptsConfig)
    prior: str = "toybox-ideal"
    """Diffusion prior: a known name, a folder in Stable Diffusion's layout, or a hub id."""
    representation: RepresentationName = "gaussians"
    """What is optimised: a cloud (``gaussians``, ``densify``) or a hash-grid field (``ngp``)."""
    steps: int = 400
    """Optimisation steps; every schedule is tied to this number."""
    seed: int = 0
    """Seed of every random draw of the run."""
    views_per_step: int = 4
    """Cameras rendered in each step."""
    learning_rate_scale: float = 1.0
    """Factor on every learning rate."""
    backgrounds: tuple[BackgroundName, ...] = ("white",)
    """Solid backgrounds; each view draws one and its prompt names it."""
    cameras: CameraConfig = field(default_factory=CameraConfig)
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    gaussians: GaussiansConfig = field(default_factory=GaussiansConfig)
    densify: DensifyConfig = field(default_factory=DensifyConfig)
    ngp: NgpConfig = field(default_factory=NgpConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    ideal_prior: IdealPriorConfig = field(default_factory=IdealPriorConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    outputs: OutputConfig = field(default_factory=OutputConfig)

    def __post_init__(self) -> None:
        if self.representation not in get_args(RepresentationName):
            known = ", ".join(get_args(RepresentationName))
            raise ValueError(f"representation must be one of {known}, got {self.representation!r}")
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")
        if not 1 <= self.views_per_step <= 64:
            raise ValueError(f"views_per_step must be 1 to 64, got {self.views_per_step}")
        if not 1e-3 <= self.learning_rate_scale <= 1e3:
            raise ValueError(f"learning_rate_scale must be 0.001 to 1000, got {self.learning_rate_scale}")
        if self.cameras.antithetic and self.views_per_step % 2:
            raise ValueError(f"cameras.antithetic needs an even views_per_step, got {self.views_per_step}")
        if not self.backgrounds:
            raise ValueError("backgrounds must name at least one")
        if not 0 <= self.seed < 2**62:
            raise ValueError(f"seed must be 0 to 2^62, got {self.seed}")


def require_prompt(config: RunConfig) -> None:
    """UserError where there is nothing to make."""
    if not config.prompt.strip():
        raise UserError('the prompt is empty: say what to make, as in --prompt "a blue robot"')
