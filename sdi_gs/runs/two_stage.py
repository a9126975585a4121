"""A field first, splats on its surface second: what of a run's settings each stage gets; free of torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from sdi_gs.errors import UserError
from sdi_gs.settings.run import RunConfig


@dataclass(frozen=True, kw_only=True)
class StagesConfig:
    """How a run's steps are shared out, and where the second stage takes up the diffusion."""

    field_share: float = 0.6
    """Share of the steps that train the field; the rest trains the splats."""
    t_max: float = 0.5
    """First timestep of the second stage, as a share of T: noisier ones would forget what the first one made."""

    def __post_init__(self) -> None:
        if not 0.0 < self.field_share < 1.0:
            raise ValueError(f"field_share must lie between 0 and 1, got {self.field_share}")
        if not 0.0 < self.t_max <= 1.0:
            raise ValueError(f"t_max must be above 0 and at most 1, got {self.t_max}")


def field_stage(config: RunConfig, stages: StagesConfig) -> RunConfig:
    """The settings of the first stage; UserError where there are too few steps for two."""
    steps = round(stages.field_share * config.steps)
    if not 0 < steps < config.steps:
        raise UserError(f"{config.steps} steps are too few for two stages: give more --steps")
    return replace(config, representation="ngp", steps=steps)


def splat_stage(config: RunConfig, stages: StagesConfig, field: Path) -> RunConfig:
    """The settings of the second stage, which starts from the run in ``field`` and without random noise."""
    guidance = config.guidance
    t_max = min(guidance.t_max, max(stages.t_max, guidance.t_min))
    return replace(
        config,
        representation="gaussians",
        steps=config.steps - field_stage(config, stages).steps,
        guidance=replace(guidance, t_max=t_max, random_fraction=0.0),
        gaussians=replace(config.gaussians, init="run", init_from=str(field)),
    )
