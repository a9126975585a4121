"""Score distillation as a move towards a denoised target, for any source of noise (SDI; SDS is a special case).

One call infers kappa for the latents, noises them with it at t, predicts the clean latents under guidance and returns
these as the target. The loss 0.5 |z - target|^2 then has the gradient sigma(t) (eps - kappa), which is SDS for random
kappa and SDI for inverted kappa (SDI paper, section 4). SDS, SDI, ISM and DDIM differ in their noise source only.

Letters: B images, C latent channels, h w latent pixels.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sdi_gs.contracts import DiffusionPrior, GuidanceOutput, NoiseSchedule
from sdi_gs.errors import UserError
from sdi_gs.guidance.guided_predictor import GuidedPredictor
from sdi_gs.guidance.noise_sources.catalog import load_noise_source
from sdi_gs.guidance.noise_sources.protocol import InfersNoise, NoiseRequest, NoiseSource, source_name, with_defaults
from sdi_gs.guidance.noise_sources.random import Random
from sdi_gs.guidance.prompts import Conditions
from sdi_gs.guidance.schedule import add_noise, predicted_clean
from sdi_gs.guidance.step_plan import StepPlan
from sdi_gs.row_groups import views_together
from sdi_gs.settings.compute import ComputeConfig
from sdi_gs.settings.guidance import GuidanceConfig

_SPREAD_FLOOR = 1e-8
"""Added to both spreads, for flat latents (MVDream's code)."""


@torch.no_grad()
def distill(
    config: GuidanceConfig,
    prior: DiffusionPrior,
    latents: Tensor,  # [B, C, h, w]
    conditions: Conditions,
    *,
    plan: StepPlan,
    generator: torch.Generator,
    noise_source: InfersNoise | None = None,
    carried_noise: Tensor | None = None,  # [1 or B, C, h, w]
    compute: ComputeConfig | None = None,
) -> GuidanceOutput:
    """Compute the denoised target of a batch of latents that share a timestep (SDI paper, algorithm 2).

    ``noise_source`` infers kappa, by default the one that ``config.noise`` names; ``carried_noise`` is what its
    ``carry`` returned at the previous step. ``compute`` limits the rows per call of the prior.

    Raises UserError if the source returns noise of another shape than the latents'.
    """
    predictor = GuidedPredictor(prior, conditions, compute)
    inferring = predictor
    if config.perp_neg_calls == "last" and conditions.perp_neg is not None:
        inferring = GuidedPredictor(prior, replace(conditions, perp_neg=None), compute)
    schedule, source = prior.schedule, _source_of_step(config, plan, noise_source)
    request = NoiseRequest(
        config=config,
        plan=plan,
        schedule=schedule,
        latents=latents,
        predict=inferring,
        generator=generator,
        carried=_fitting(carried_noise, len(latents)),
    )
    noise = source.infer(request)
    if noise.shape != latents.shape:
        shapes = f"{[*noise.shape]}, not {[*latents.shape]}"
        raise UserError(f"noise source {source_name(source)}: infer returned shape {shapes}")
    shown = source.shown_timestep(plan, config, schedule)
    noised = add_noise(latents, noise, schedule.alpha_cumprod(shown))
    level = schedule.alpha_cumprod(plan.timestep)
    if config.target_rescale == 0.0:
        predicted = predictor(noised, plan.timestep, config.guidance_scale)
        target = predicted_clean(noised, predicted, level)
    else:
        predicted, conditional = predictor.with_conditional(noised, plan.timestep, config.guidance_scale)
        guided, plain = (predicted_clean(noised, noises, level) for noises in (predicted, conditional))
        target = rescaled(guided, plain, config.target_rescale, together=views_together(prior))
    if config.gradient_clip is not None:
        target = _clipped(target, latents, config.gradient_clip)
    return GuidanceOutput(
        target=target,
        noise=noise,
        predicted_noise=predicted,
        noised_latents=noised,
        timestep=plan.timestep,
        predictor_calls=predictor.calls if inferring is predictor else predictor.calls + inferring.calls,
    )


def rescaled(
    target: Tensor,  # [B, C, h, w]
    conditional: Tensor,  # [B, C, h, w]
    share: float,
    *,
    together: int,
) -> Tensor:  # [B, C, h, w]
    """Return the target with its spread moved by ``share`` towards that of the clean latents without guidance.

    The spread is the standard deviation over all numbers of ``together`` images (arXiv 2305.08891, section 3.4; over a
    group's views as MVDream's code takes it).
    """
    own, wanted = (
        latents.unflatten(0, (-1, together)).flatten(1).std(dim=1).repeat_interleave(together)[:, None, None, None]
        for latents in (target, conditional)
    )
    return share * target * (wanted + _SPREAD_FLOOR) / (own + _SPREAD_FLOOR) + (1.0 - share) * target


def predictor_calls(
    config: GuidanceConfig, plan: StepPlan, schedule: NoiseSchedule, noise_source: InfersNoise | None = None
) -> int:
    """Return the number of predictor calls that ``distill`` will make: one for the target, the others for kappa."""
    return _source_of_step(config, plan, noise_source).num_calls(plan, config, schedule) + 1


def _source_of_step(config: GuidanceConfig, plan: StepPlan, noise_source: InfersNoise | None) -> NoiseSource:
    """Return the source of a step's kappa, which is random during the warm-up."""
    if plan.warming_up:
        return Random()
    return load_noise_source(config.noise) if noise_source is None else with_defaults(noise_source)


def _fitting(
    carried: Tensor | None,  # [1 or any, C, h, w]
    count: int,
) -> Tensor | None:
    """Return carried noise only if it serves all images at once or is of as many images."""
    return carried if carried is not None and len(carried) in (1, count) else None


def _clipped(
    target: Tensor,  # [B, C, h, w]
    latents: Tensor,  # [B, C, h, w]
    limit: float,
) -> Tensor:
    """Move each element of the target to within ``limit`` of the latents, which clips the loss' gradient."""
    pull = target - latents
    # Non-finite elements stay as they are, for the checks that follow.
    return latents + torch.where(pull.isfinite(), pull.clamp(-limit, limit), pull)
