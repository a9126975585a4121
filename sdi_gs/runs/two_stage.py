"""Settings of the two stages of a run: a field first, then splats that start from its surface."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sdi_gs.errors import UserError
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.stages import StagesConfig


def field_stage(config: RunConfig, stages: StagesConfig, suited: RunConfig | None = None) -> RunConfig:
    """Return the settings of the first stage, those that are ``suited`` to a field with its share of the run's steps.

    Without suited ones, they are the run's own. UserError if there are too few steps for two stages.
    """
    steps = round(stages.field_share * config.steps)
    if not 0 < steps < config.steps:
        raise UserError(f"{config.steps} steps are too few for two stages: give more --steps")
    return replace(suited or config, representation="ngp", steps=steps, extend=0)


def splat_stage(config: RunConfig, stages: StagesConfig, field: Path) -> RunConfig:
    """Return the settings of the second stage, which starts from the run in ``field``, without random noise."""
    guidance = config.guidance
    t_max = min(guidance.t_max, max(stages.t_max, guidance.t_min))
    return replace(
        config,
        representation="gaussians",
        steps=config.steps - field_stage(config, stages).steps,
        guidance=replace(guidance, t_max=t_max, random_fraction=0.0),
        gaussians=replace(config.gaussians, init="run", init_from=str(field)),
    )
