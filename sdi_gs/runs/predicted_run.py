"""Memory and time of a whole run under a published model on a card, from the shipped predictions of single steps.

A row of these is a step on four views of Gaussians, or of as many pixels as one view of 512 of the published field,
with the times of its parts. Other runs follow by their numbers of views, branches, calls, pixels and steps on a target
(docs/reports/gpu-memory.md counts some of them as well).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from sdi_gs.guidance.score_distillation import predictor_calls
from sdi_gs.guidance.step_plan import plan_step
from sdi_gs.priors.noise_schedules import scaled_linear_schedule
from sdi_gs.row_groups import row_groups
from sdi_gs.runs.predicted_memory import MODELS, Case, predicted
from sdi_gs.settings.guidance import GuidanceConfig
from sdi_gs.settings.ngp import PUBLISHED, PUBLISHED_MVDREAM, NgpConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tiers import TIERS, Tier

COUNTED_VIEWS = 4
"""Of the rows of Gaussians."""
HALF_VAE = 0.5
"""Time of the VAE in half precision, over that in float32 on tensor cores: their peaks are as 2 to 1."""
SAME_COST = {"sd15": "sd21-base"}
"""Priors whose steps take what another one's take: the U-Net of 1.5 has the same blocks, with 0.7 % fewer weights."""
_PLANS = 200


@dataclass(frozen=True, kw_only=True)
class Counted:
    """The rows of a prior."""

    branches: int
    """Of guidance in a call: four with Perp-Neg."""
    together: int = 1
    """Views that are denoised together, however few go at once."""
    field: NgpConfig = PUBLISHED
    field_size: int = MODELS["sd21-base"]
    """Pixels of the views in the row of the field, which are as many as in one view of 512."""
    field_case: Case = "published"


COUNTED = {
    "sd21-base": Counted(branches=4),
    "sd21": Counted(branches=4),
    "mvdream": Counted(
        branches=2, together=4, field=PUBLISHED_MVDREAM, field_size=MODELS["mvdream"], field_case="mvdream"
    ),
}


@dataclass(frozen=True, kw_only=True)
class PredictedRun:
    """Prediction for one tier."""

    tier: Tier
    peak_bytes: int
    """Peak bytes of a step of the kind that was counted; fewer or smaller views need less."""
    hours: dict[str, float]
    """Hours of all steps, by card."""


def predicted_runs(config: RunConfig, *, same_cost: str | None = None) -> list[PredictedRun]:
    """Return the predictions for all tiers; none for a prior, a field or a number of views that was not counted.

    ``same_cost`` is the name of the prior whose cost a model of one's own has.
    """
    config = config if same_cost is None else replace(config, prior=same_cost)
    found = []
    for tier in TIERS:
        need, seconds = predicted_need(config, tier), step_seconds(config, tier)
        if need is not None and seconds is not None:
            hours = {card: config.total_steps * value / 3600.0 for card, value in seconds.items()}
            found.append(PredictedRun(tier=tier, peak_bytes=need, hours=hours))
    return found


def predicted_need(config: RunConfig, tier: Tier) -> int | None:
    """Return the bytes of a card that a run needs at most on a tier; None for a run that was not counted."""
    rows = _counted_rows(config, tier)
    if rows is None:
        return None
    # The row of a field is a whole step of its views; more views, or larger ones, need at most what its networks do.
    prior = _counted_prior(config)
    counted = COUNTED[prior]
    as_counted = config.views_per_step == counted.together and MODELS[prior] == counted.field_size
    return max(row["peak_bytes"] for row in (rows[-1:] if as_counted else rows))


def step_seconds(config: RunConfig, tier: Tier) -> dict[str, float] | None:
    """Return the seconds of a run's mean step on a tier, by card; None for a run that was not counted."""
    rows = _counted_rows(config, tier)
    if rows is None:
        return None
    of_networks, of_field = rows[0], rows[1] if len(rows) > 1 else None
    calls, per_target = _calls(config.guidance), config.replay.steps_per_target
    found = {}
    for card, parts in of_networks["parts_seconds"].items():
        vae = parts["vae"] * _share(config) * (1.0 if config.compute.vae_precision in ("auto", "float32") else HALF_VAE)
        if of_field is None:
            scene = _share(config) * parts["rest"]
        else:
            pixels = pixels_factor(config, MODELS[_counted_prior(config)])
            scene = config.views_per_step * pixels * of_field["parts_seconds"][card]["rest"]
        fresh = sum(_call_seconds(config, tier, parts, branches) * count for branches, count in calls.items())
        kept = vae + scene
        if config.losses.space == "pixels":
            kept = scene if of_field else _share(config) * of_networks["replayed_seconds"][card]
        found[card] = kept + (fresh + vae + scene - kept) / per_target
    return found


def pixels_factor(config: RunConfig, prior_size: int) -> float:
    """Return the mean number of pixels of a render over the run, over that of a picture of 512."""
    shares = config.render.shares(prior_size)
    return sum(share * side**2 for side, share in shares) / MODELS["sd21-base"] ** 2


def _counted_rows(config: RunConfig, tier: Tier) -> list[dict[str, Any]] | None:
    """Return the row of a run's networks, and that of its field if it is one; None if either was not counted."""
    prior = _counted_prior(config)
    size, counted = MODELS.get(prior), COUNTED.get(prior)
    if size is None or counted is None or config.views_per_step > COUNTED_VIEWS:
        return None
    rows = [predicted(tier, size, "pixels" if config.losses.space == "pixels" else "gaussians")]
    if config.representation != "gaussians":
        if _cost(config.ngp) != _cost(counted.field) or config.representation != "ngp":
            return None
        rows.append(predicted(tier, counted.field_size, counted.field_case))
    return None if None in rows else rows


def _counted_prior(config: RunConfig) -> str:
    """Return the name of the prior that was counted for a run's own."""
    return SAME_COST.get(config.prior, config.prior)


def _share(config: RunConfig) -> float:
    return config.views_per_step / COUNTED_VIEWS


def _call_seconds(config: RunConfig, tier: Tier, parts: dict[str, float], branches: int) -> float:
    """Return the time of one call of the predictor: the card's or the host's, whichever takes longer."""
    counted, at_once = COUNTED[_counted_prior(config)], tier.compute.views_at_once
    groups = len(row_groups(config.views_per_step, at_once, together=counted.together))
    counted_groups = len(row_groups(COUNTED_VIEWS, at_once, together=counted.together))
    on_card = parts["call"] * _share(config) * branches / counted.branches
    return max(on_card, parts["host"] * groups / counted_groups)


def _calls(guidance: GuidanceConfig) -> dict[int, float]:
    """Return the number of calls in a mean step that computes targets, by their branches."""
    schedule, generator = scaled_linear_schedule(), torch.Generator().manual_seed(0)
    last = 4 if guidance.perp_neg else 2
    inferring = last if guidance.perp_neg_calls == "all" else 2
    calls = {inferring: 0.0, last: 0.0}
    for index in range(_PLANS):
        plan = plan_step(guidance, index, _PLANS, num_timesteps=schedule.num_timesteps, generator=generator)
        calls[inferring] += (predictor_calls(guidance, plan, schedule) - 1) / _PLANS
        calls[last] += 1.0 / _PLANS
    return calls


def _cost(field: NgpConfig) -> tuple[object, ...]:
    """Return the settings by which a field's memory and time go."""
    return (
        *(field.grid.num_levels, field.grid.log2_table_size, field.hidden_width, field.samples_per_ray, field.radius),
        *(field.occupancy_resolution, field.empty_alpha, field.background, field.shading.enabled),
    )
