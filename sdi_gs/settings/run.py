"""The configuration of a run: one tree of frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from sdi_gs.errors import UserError
from sdi_gs.settings.backgrounds import BackgroundChoice
from sdi_gs.settings.bounds import SEED, WEIGHT, Range, check_settings
from sdi_gs.settings.cameras import CameraConfig
from sdi_gs.settings.compute import ComputeConfig
from sdi_gs.settings.densify import DensifyConfig
from sdi_gs.settings.gaussians import GaussiansConfig
from sdi_gs.settings.guidance import GuidanceConfig, ViewPromptsConfig
from sdi_gs.settings.losses import LossConfig
from sdi_gs.settings.ngp import NgpConfig
from sdi_gs.settings.outputs import OutputConfig
from sdi_gs.settings.priors import IdealPriorConfig, PriorType, lora_and_weight
from sdi_gs.settings.render_size import RenderConfig
from sdi_gs.settings.replay import ReplayConfig
from sdi_gs.settings.representations import RepresentationName
from sdi_gs.settings.voxels import VoxelsConfig


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All settings that determine the results of a run."""

    prompt: str = ""
    """The sentence to turn into an object."""
    negative_prompt: str = ""
    """Prompt of the unconditional branch, instead of the empty one."""
    view_prompts: ViewPromptsConfig = field(default_factory=ViewPromptsConfig)
    prior: str = "toybox-ideal"
    """Diffusion prior: a known name, a folder in Stable Diffusion's layout, a single file, or a hub id."""
    prior_type: PriorType = "auto"
    """What the prior's network predicts, where its own files are wrong or silent."""
    lora: tuple[str, ...] = ()
    """LoRA files as FILE or FILE:WEIGHT, added to the prior's weights in this order; the weight is 1 if not given."""
    embedding: tuple[str, ...] = ()
    """Textual inversions: files with the vectors of a word, which the prompt may then use."""
    prior_sums: tuple[str, ...] = ()
    """sha256 of the files of prior, lora and embedding, in this order; filled when a run starts, checked afterwards."""
    representation: RepresentationName = "gaussians"
    """Representation to optimise: Gaussians (``gaussians``, ``densify``), a hash-grid field (``ngp``) or a dense grid
    (``voxels``)."""
    steps: Annotated[int, Range(1, 10_000_000)] = 400
    """Optimisation steps; every schedule is tied to this number."""
    extend: Annotated[int, Range(0, 10_000_000)] = 0
    """Further steps after these, in which every schedule stays as in their last one."""
    seed: Annotated[int, SEED] = 0
    """Seed of every random draw of the run."""
    views_per_step: Annotated[int, Range(1, 64)] = 4
    """Cameras rendered in each step."""
    learning_rate_scale: Annotated[float, Range(0.001, 1000.0)] = 1.0
    """Factor on every learning rate."""
    backgrounds: tuple[BackgroundChoice, ...] = ("white",)
    """Solid backgrounds, of which each view draws one; "random" is a colour of the view's own."""
    background_weights: Annotated[tuple[float, ...] | None, WEIGHT] = None
    """How often each of ``backgrounds`` is drawn, in its order, relative to the others; None for equally often."""
    prompt_background: bool = True
    """Whether prompts name the background, as in "a mug, front view, white background"; a background without a name
    ("random", a field's own) is never named. Toybox' priors were made with it, Stable Diffusion's recipes without."""
    cameras: CameraConfig = field(default_factory=CameraConfig)
    render: RenderConfig = field(default_factory=RenderConfig)
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    gaussians: GaussiansConfig = field(default_factory=GaussiansConfig)
    densify: DensifyConfig = field(default_factory=DensifyConfig)
    ngp: NgpConfig = field(default_factory=NgpConfig)
    voxels: VoxelsConfig = field(default_factory=VoxelsConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    ideal_prior: IdealPriorConfig = field(default_factory=IdealPriorConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    outputs: OutputConfig = field(default_factory=OutputConfig)

    def __post_init__(self) -> None:
        check_settings(self)
        for text in self.lora:
            lora_and_weight(text)
        if self.cameras.antithetic and self.views_per_step % 2:
            raise ValueError(f"cameras.antithetic needs an even views_per_step, got {self.views_per_step}")
        group = self.cameras.views_per_group
        if self.views_per_step % group:
            raise ValueError(
                f"views_per_step must be a multiple of cameras.views_per_group, {group}, got {self.views_per_step}"
            )
        if self.guidance.views == "cameras" and self.view_prompts != ViewPromptsConfig():
            raise ValueError("view_prompts replace view words; with guidance.views cameras there are none: use words")
        self._check_backgrounds()
        lit, random = self.ngp.shading.enabled, self.ngp.background == "random"
        if self.replay.steps_per_target > 1 and self.representation == "ngp" and (lit or random):
            cause, fix = ("ngp.shading.enabled", "turn it off") if lit else ("ngp.background random", "choose given")
            raise ValueError(
                f"replay.steps_per_target must be 1 with {cause}, because a kept target shows the light and the "
                f"background of its own render, got {self.replay.steps_per_target}: {fix}, or set 1"
            )

    def _check_backgrounds(self) -> None:
        """Raise ValueError unless there is a background, with a weight for each if there are weights."""
        if not self.backgrounds:
            raise ValueError("backgrounds must name at least one")
        weights = self.background_weights
        if weights is not None and (len(weights) != len(self.backgrounds) or sum(weights) == 0.0):
            raise ValueError(
                f"background_weights must be one number for each of {' '.join(self.backgrounds)}, not all 0, got "
                f"{' '.join(map(str, weights)) or 'none'}"
            )

    @property
    def named_backgrounds(self) -> bool:
        """Whether prompts name the background, where it has a name."""
        return self.prompt_background and (self.representation != "ngp" or self.ngp.background == "given")

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.steps + self.extend

    def scheduled(self, step: int) -> int:
        """Return the step by which the schedules go: ``step``, or the last one that they are tied to."""
        return min(step, self.steps - 1)


def require_groups(prior: str, needed: int, config: RunConfig) -> None:
    """Raise UserError unless a run's views stand in the groups of ``needed`` views that its prior denoises together."""
    drawn = config.cameras.views_per_group
    if needed not in (1, drawn):
        raise UserError(
            f"{prior} denoises {needed} views of one object together, and cameras.views_per_group is {drawn}: use "
            f"--cameras.views-per-group {needed} and a multiple of {needed} for --views-per-step"
        )
    if needed > 1 and config.guidance.views != "cameras":
        raise UserError(f"{prior} needs to know the cameras of its views: use --guidance.views cameras")


def require_prompt(config: RunConfig) -> None:
    """Raise UserError for an empty prompt."""
    if not config.prompt.strip():
        raise UserError('the prompt is empty: say what to make, as in --prompt "a blue robot"')
