"""Score distillation as a move towards a denoised target, with a choice of noise (SDI; SDS as a member).

One call: infer kappa for the latents, noise them with it at t, ask the prior under guidance what the clean latent
would be, and return that as the target. The loss 0.5 |z - target|^2 then has the gradient sigma(t) (eps - kappa),
which is SDS for random kappa and SDI for inverted kappa (SDI paper, section 4). The source of kappa is all in which
SDS, SDI, ISM and DDIM differ here.

Letters: B images, C latent channels, h w latent pixels, L tokens, E embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

import torch
from torch import Tensor

from sdi_gs.contracts import DiffusionPrior, GuidanceOutput, NoiseSchedule
from sdi_gs.guidance.inversion import inversion_timesteps, invert_ddim
from sdi_gs.guidance.noise import fixed_noise, iterated_noise, noise_between, random_noise
from sdi_gs.guidance.perp_neg import Negatives, combine_branches
from sdi_gs.guidance.schedule import add_noise, annealed_timestep, inversion_end, predicted_clean
from sdi_gs.row_groups import row_groups
from sdi_gs.settings.compute import ComputeConfig
from sdi_gs.settings.guidance import GuidanceConfig, NoiseSource


class GuidedPredictor:
    """The prior under guidance for one batch of prompts, counting its calls.

    Classifier-free guidance, or Perp-Neg where negatives are given. All branches ride in one call, one after the
    other and each in the order of the images, unless the compute config wants fewer rows at once.
    """

    def __init__(
        self,
        prior: DiffusionPrior,
        conditional: Tensor,  # [B, L, E]
        unconditional: Tensor,  # [B, L, E]
        negatives: Negatives | None = None,
        compute: ComputeConfig | None = None,
    ) -> None:
        self._prior = prior
        self._negatives = negatives
        self._branches = [conditional, unconditional]
        if negatives is not None:
            self._branches += negatives.embeddings.unbind(dim=1)
        self._compute = compute or ComputeConfig()
        # Kept, because a prior may remember what it made of a tensor of embeddings.
        self._told: dict[tuple[int, ...], list[tuple[slice, Tensor]]] = {}
        self.calls = 0

    def __call__(
        self,
        noised_latents: Tensor,  # [B, C, h, w]
        timestep: int,
        scale: float,
    ) -> Tensor:
        """e_u + scale (e_c - e_u), or Perp-Neg's like of it, [B, C, h, w]; branches of weight 0 are left out."""
        self.calls += 1
        if scale == 1.0 and self._negatives is None:
            return self._ask(noised_latents, timestep, (0,))[0]
        if scale == 0.0:
            return self._ask(noised_latents, timestep, (1,))[0]
        branches = range(len(self._branches))
        conditional, unconditional, *negatives = [
            noise
            for group in row_groups(len(branches), self._compute.branches_at_once)
            for noise in self._ask(noised_latents, timestep, tuple(branches[group]))
        ]
        if self._negatives is None:
            return unconditional + scale * (conditional - unconditional)
        return combine_branches(conditional, unconditional, negatives, self._negatives.weights, scale)

    def _ask(
        self,
        noised_latents: Tensor,  # [B, C, h, w]
        timestep: int,
        branches: tuple[int, ...],
    ) -> list[Tensor]:  # each [B, C, h, w]
        """The noise of some branches, a group of views at a time."""
        if branches not in self._told:
            self._told[branches] = [
                (views, _joined([self._branches[branch][views] for branch in branches]))
                for views in row_groups(len(noised_latents), self._compute.views_at_once)
            ]
        answers = [
            self._prior.predict_noise(_joined([noised_latents[views]] * len(branches)), timestep, embeddings)
            for views, embeddings in self._told[branches]
        ]
        return [_joined(parts) for parts in zip(*(answer.chunk(len(branches)) for answer in answers), strict=True)]


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
    # The published code passes t by up to one stride of its grid, the paper by up to T / 30.
    reach = config.inversion_overshoot if config.renoise == "paper" else 1.0 / config.inversion_steps
    warming_up = step < config.random_fraction * num_steps
    return StepPlan(
        timestep=timestep,
        overshoot=int(draw * reach * num_timesteps),
        source="random" if warming_up else config.noise,
    )


def infer_noise(
    config: GuidanceConfig,
    plan: StepPlan,
    predictor: GuidedPredictor,
    schedule: NoiseSchedule,
    latents: Tensor,  # [B, C, h, w]
    generator: torch.Generator,
    carried_noise: Tensor | None = None,  # [1 or B, C, h, w]
) -> Tensor:
    """kappa [B, C, h, w] from the chosen source; ``carried_noise`` is what ``noise_to_carry`` kept."""
    match plan.source:
        case "random":
            return random_noise(latents, generator)
        case "fixed-random":
            return fixed_noise(carried_noise, latents, generator)
        case "cached":
            return random_noise(latents, generator) if carried_noise is None else carried_noise
        case "fixed-point":
            return iterated_noise(
                lambda noised, at: predictor(noised, at, config.guidance_scale),
                latents,
                plan.timestep,
                random_noise(latents, generator),
                schedule=schedule,
                iterations=config.fixed_point_iterations,
            )
        case "inversion" | "unconditional":
            scale = config.resolved_inversion_scale if plan.source == "inversion" else 0.0
            grid = inversion_timesteps(
                plan.timestep,
                plan.overshoot,
                num_steps=config.inversion_steps,
                schedule=schedule,
                order=config.inversion_order,
                data_std=config.inversion_data_std,
            )
            inverted = invert_ddim(
                lambda noised, at: predictor(noised, at, scale),
                latents,
                grid,
                schedule=schedule,
                eta=config.inversion_eta,
                generator=generator,
                order=config.inversion_order,
                data_std=config.inversion_data_std,
            )
            return noise_between(inverted, latents, schedule.alpha_cumprod(grid[-1]))
        case _:
            assert_never(plan.source)


@torch.no_grad()
def distill(
    config: GuidanceConfig,
    prior: DiffusionPrior,
    latents: Tensor,  # [B, C, h, w]
    conditional: Tensor,  # [B, L, E]
    unconditional: Tensor,  # [B, L, E]
    *,
    plan: StepPlan,
    generator: torch.Generator,
    negatives: Negatives | None = None,
    carried_noise: Tensor | None = None,  # [1 or B, C, h, w]
    compute: ComputeConfig | None = None,
) -> GuidanceOutput:
    """The denoised target of a batch of latents that share a timestep (SDI paper, algorithm 2).

    ``negatives`` turns Perp-Neg on; ``carried_noise`` is what ``noise_to_carry`` kept of the step before;
    ``compute`` says how many rows the prior is shown at once.
    """
    predictor = GuidedPredictor(prior, conditional, unconditional, negatives, compute)
    noise = infer_noise(config, plan, predictor, prior.schedule, latents, generator, carried_noise)
    level = prior.schedule.alpha_cumprod(plan.timestep)
    noised = add_noise(latents, noise, prior.schedule.alpha_cumprod(_shown_timestep(config, plan, prior.schedule)))
    predicted = predictor(noised, plan.timestep, config.guidance_scale)
    target = predicted_clean(noised, predicted, level)
    if config.gradient_clip is not None:
        target = _within_reach(target, latents, config.gradient_clip)
    return GuidanceOutput(
        target=target,
        noise=noise,
        predicted_noise=predicted,
        noised_latents=noised,
        timestep=plan.timestep,
        predictor_calls=predictor.calls,
    )


def noise_to_carry(config: GuidanceConfig, output: GuidanceOutput) -> Tensor | None:
    """What the next step's kappa needs of this step, [1 or B, C, h, w]; part of a run's state."""
    match config.noise:
        case "cached":
            return output.predicted_noise
        case "fixed-random":
            return output.noise[:1]
        case "inversion" | "random" | "unconditional" | "fixed-point":
            return None
        case _:
            assert_never(config.noise)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """The rows of all parts; a single part as it is, without a copy."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _shown_timestep(config: GuidanceConfig, plan: StepPlan, schedule: NoiseSchedule) -> int:
    """The level at which the latents are shown; kappa at the inversion's end gives the inverted latents back."""
    if config.renoise == "reference" and plan.source in ("inversion", "unconditional"):
        return inversion_end(plan.timestep, plan.overshoot, schedule)
    return plan.timestep


def _within_reach(
    target: Tensor,  # [B, C, h, w]
    latents: Tensor,  # [B, C, h, w]
    reach: float,
) -> Tensor:
    """The target with each element at most ``reach`` from the latents, so that the loss' gradient is clipped."""
    pull = target - latents
    # What is not finite stays so, for the guards to see.
    return latents + torch.where(pull.isfinite(), pull.clamp(-reach, reach), pull)
