"""Score distillation as a move towards a denoised target, with a choice of noise (SDI; SDS as a member).

One call: infer kappa for the latents, noise them with it at t, ask the prior under guidance what the clean latent
would be, and return that as the target. The loss 0.5 |z - target|^2 then has the gradient sigma(t) (eps - kappa),
which is SDS for random kappa and SDI for inverted kappa (SDI paper, section 4).

Letters: B images, C latent channels, h w latent pixels, L tokens, E embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

import torch
from torch import Tensor

from sdi_gs.contracts import DiffusionPrior, GuidanceOutput, NoiseSchedule
from sdi_gs.guidance.config import GuidanceConfig, NoiseSource
from sdi_gs.guidance.noise import invert_ddim, noise_between, random_noise
from sdi_gs.guidance.schedule import add_noise, annealed_timestep, inversion_grid, predicted_clean


class GuidedPredictor:
    """The prior under classifier-free guidance for one batch of prompts, counting its calls."""

    def __init__(
        self,
        prior: DiffusionPrior,
        conditional: Tensor,  # [B, L, E]
        unconditional: Tensor,  # [B, L, E]
    ) -> None:
        self._prior = prior
        self._conditional = conditional
        self._unconditional = unconditional
        self.calls = 0

    def __call__(
        self,
        noised_latents: Tensor,  # [B, C, h, w]
        timestep: int,
        scale: float,
    ) -> Tensor:
        """e_u + scale (e_c - e_u), [B, C, h, w], both branches in one call; a branch of weight 0 is left out."""
        self.calls += 1
        if scale == 1.0:
            return self._prior.predict_noise(noised_latents, timestep, self._conditional)
        if scale == 0.0:
            return self._prior.predict_noise(noised_latents, timestep, self._unconditional)
        both = self._prior.predict_noise(
            torch.cat([noised_latents, noised_latents]),
            timestep,
            torch.cat([self._conditional, self._unconditional]),
        )
        conditional, unconditional = both.chunk(2)
        return unconditional + scale * (conditional - unconditional)


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """What a training step's guidance will do; drawn on the host so that the device never waits."""

    timestep: int
    overshoot: int
    """How far the inversion passes the timestep before kappa is read off."""
    source: NoiseSource


def plan_step(
    config: GuidanceConfig,
    step: int,
    num_steps: int,
    *,
    num_timesteps: int,
    generator: torch.Generator,
) -> StepPlan:
    """The timestep that all views of a step share, the inversion's overshoot and the noise source."""
    timestep = annealed_timestep(
        step,
        num_steps,
        t_max=config.t_max,
        t_min=config.t_min,
        annealing=config.annealing,
        num_timesteps=num_timesteps,
        generator=generator,
    )
    draw = torch.rand((), generator=generator).item()
    warming_up = step < config.random_fraction * num_steps
    return StepPlan(
        timestep=timestep,
        overshoot=int(draw * config.inversion_overshoot * num_timesteps),
        source="random" if warming_up else config.noise,
    )


def infer_noise(
    config: GuidanceConfig,
    plan: StepPlan,
    predictor: GuidedPredictor,
    schedule: NoiseSchedule,
    latents: Tensor,  # [B, C, h, w]
    generator: torch.Generator,
) -> Tensor:
    """kappa [B, C, h, w] from the chosen source."""
    match plan.source:
        case "random":
            return random_noise(latents, generator)
        case "inversion":
            grid = inversion_grid(plan.timestep, plan.overshoot, num_steps=config.inversion_steps, schedule=schedule)
            inverted = invert_ddim(
                lambda noised, at: predictor(noised, at, config.resolved_inversion_scale),
                latents,
                grid,
                schedule=schedule,
                eta=config.inversion_eta,
                generator=generator,
            )
            return noise_between(inverted, latents, schedule.alpha_cumprod(grid[-1]))
        case _:
            assert_never(plan.source)


@torch.no_grad()
def distil(
    config: GuidanceConfig,
    prior: DiffusionPrior,
    latents: Tensor,  # [B, C, h, w]
    conditional: Tensor,  # [B, L, E]
    unconditional: Tensor,  # [B, L, E]
    *,
    plan: StepPlan,
    generator: torch.Generator,
) -> GuidanceOutput:
    """The denoised target of a batch of latents that share a timestep (SDI paper, algorithm 2)."""
    predictor = GuidedPredictor(prior, conditional, unconditional)
    noise = infer_noise(config, plan, predictor, prior.schedule, latents, generator)
    level = prior.schedule.alpha_cumprod(plan.timestep)
    noised = add_noise(latents, noise, level)
    predicted = predictor(noised, plan.timestep, config.guidance_scale)
    return GuidanceOutput(
        target=predicted_clean(noised, predicted, level),
        noise=noise,
        predicted_noise=predicted,
        noised_latents=noised,
        timestep=plan.timestep,
        predictor_calls=predictor.calls,
    )
