"""Memory and time of a whole run under Stable Diffusion 2.1 on a card, from the shipped predictions of single steps.

A row of these is a step with four branches of guidance on four views of Gaussians, or on one view of the published
field. Other runs follow by their numbers of views, branches and calls: the U-Net takes 92 % of such a step's time and
the VAE the rest (docs/reports/gpu-memory.md counts both). A field's own time goes by its pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sdi_gs.guidance.score_distillation import predictor_calls
from sdi_gs.guidance.step_plan import plan_step
from sdi_gs.priors.noise_schedules import scaled_linear_schedule
from sdi_gs.runs.predicted_memory import MODELS, predicted
from sdi_gs.settings.guidance import GuidanceConfig
from sdi_gs.settings.ngp import PUBLISHED, NgpConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tiers import TIERS, Tier

COUNTED = RunConfig(views_per_step=4, guidance=GuidanceConfig(t_min=0.2, perp_neg=True))
"""The run whose mean step the rows of Gaussians are of."""
SAME_COST = {"sd15": "sd21-base"}
"""Priors whose steps take what another one's take: the U-Net of 1.5 has the same blocks, with 0.7 % fewer weights."""
UNET_SHARE = 0.92
_PLANS = 200


@dataclass(frozen=True, kw_only=True)
class PredictedRun:
    """Prediction for one tier."""

    tier: Tier
    peak_bytes: int
    """Peak bytes of a step of the kind that was counted; fewer or smaller views need less."""
    hours: dict[str, float]
    """Hours of all steps, by card."""


def predicted_runs(config: RunConfig, *, same_cost: str | None = None) -> list[PredictedRun]:
    """Return the predictions for all tiers; none for a prior, a field or a loss that was not counted.

    ``same_cost`` is the name of the prior whose cost a model of one's own has.
    """
    size = MODELS.get(same_cost or SAME_COST.get(config.prior, config.prior))
    if size is None or config.losses.space != "latents" or config.replay.steps_per_target > 1:
        return []
    of_field = config.representation == "ngp"
    if of_field and _cost(config.ngp) != _cost(PUBLISHED):
        return []
    found = []
    for tier in TIERS:
        row = predicted(tier, size)
        field_row = predicted(tier, MODELS["sd21-base"], "published")
        peak = max(row["peak_bytes"], field_row["peak_bytes"]) if of_field else row["peak_bytes"]
        hours = {}
        for card, seconds in row["seconds"].items():
            step = seconds * networks_factor(config)
            if of_field:
                # The row of a field holds the networks' time for one of the four views.
                networks = predicted(tier, MODELS["sd21-base"])["seconds"][card] / COUNTED.views_per_step
                of_view = max(field_row["seconds"][card] - networks, 0.0)
                step += config.views_per_step * of_view * pixels_factor(config, size)
            hours[card] = config.total_steps * step / 3600.0
        found.append(PredictedRun(tier=tier, peak_bytes=peak, hours=hours))
    return found


def networks_factor(config: RunConfig) -> float:
    """Return the time of the networks in a mean step, over that of the counted step."""
    views = config.views_per_step / COUNTED.views_per_step
    return views * (1.0 - UNET_SHARE + UNET_SHARE * _rows_per_view(config) / _rows_per_view(COUNTED))


def pixels_factor(config: RunConfig, prior_size: int) -> float:
    """Return the mean number of pixels of a render over the run, over that of a picture of 512."""
    shares = config.render.shares(prior_size)
    return sum(share * side**2 for side, share in shares) / MODELS["sd21-base"] ** 2


def _rows_per_view(config: RunConfig) -> float:
    """Return how many rows the U-Net computes for a view in a mean step: branches, times calls."""
    schedule, generator = scaled_linear_schedule(), torch.Generator().manual_seed(0)
    guidance = config.guidance
    branches = 4 if guidance.perp_neg else 2
    inferring = branches if guidance.perp_neg_calls == "all" else 2
    total = 0
    for index in range(_PLANS):
        plan = plan_step(guidance, index, _PLANS, num_timesteps=schedule.num_timesteps, generator=generator)
        total += branches + inferring * (predictor_calls(guidance, plan, schedule) - 1)
    return total / _PLANS


def _cost(field: NgpConfig) -> tuple[object, ...]:
    """Return the settings by which a field's memory and time go."""
    return (
        *(field.grid.num_levels, field.grid.log2_table_size, field.hidden_width, field.samples_per_ray, field.radius),
        *(field.occupancy_resolution, field.empty_alpha, field.background, field.shading.enabled),
    )
