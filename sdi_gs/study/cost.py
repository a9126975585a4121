"""What a run costs: its predictor calls, and its CPU seconds from costs measured beforehand."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from sdi_gs.cameras import sample_cameras
from sdi_gs.contracts import DiffusionPrior, NoiseSchedule
from sdi_gs.guidance.guided_predictor import needed_branches
from sdi_gs.guidance.score_distillation import predictor_calls
from sdi_gs.guidance.step_plan import plan_step
from sdi_gs.priors.catalog import load_prior
from sdi_gs.settings.backgrounds import BACKGROUND_NAMES, BackgroundName
from sdi_gs.settings.guidance import GuidanceConfig
from sdi_gs.settings.replay import ReplayConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.study.warm_up import warm_up
from sdi_gs.training.trainer import Trainer

CPU = torch.device("cpu")
MEASURED_ROUNDS = 8
FIRST_ROUNDS = 16
"""Rounds before the measured ones: an object takes shape, and Gaussians render faster than their first ball."""
FOG_PER_LATENT = 10.0
"""Squared distance between latents of unit variance over that between their pictures; fog's weight goes with it."""


@dataclass(frozen=True, kw_only=True)
class Calls:
    """Predictor calls of a run by evaluated branches; one call covers all views of a round."""

    conditional: int = 0
    unconditional: int = 0
    both: int = 0
    perp_neg: int = 0
    """Calls of four branches."""
    inverted_rounds: int = 0
    """Rounds whose inversion needs the unconditional branch, and whose target does not."""

    @property
    def total(self) -> int:
        """Return the calls counted in a run's log."""
        return self.conditional + self.unconditional + self.both + self.perp_neg


def rounds_of(config: RunConfig) -> int:
    """Return the number of targets of a run."""
    return math.ceil(config.steps / config.replay.steps_per_target)


def without_replay(config: RunConfig) -> RunConfig:
    """Return the settings with a target for every step, and the loss on latents as in 0.2."""
    losses = config.losses
    if losses.space == "pixels":
        losses = replace(losses, space="latents", fog=FOG_PER_LATENT * losses.fog)
    return replace(config, replay=ReplayConfig(), losses=losses)


def count_calls(config: RunConfig, schedule: NoiseSchedule) -> Calls:
    """Return the calls that a run will make, from its schedule and without a prior."""
    guidance = config.guidance
    perp_neg, every_call = guidance.perp_neg, guidance.perp_neg_calls == "all"
    target = _branches(guidance.guidance_scale, perp_neg=perp_neg)
    inversion = _branches(_inferring_scale(guidance), perp_neg=perp_neg and every_call)
    counts, inverted_rounds = {"conditional": 0, "unconditional": 0, "all": 0, "perp_neg": 0}, 0
    generator = torch.Generator().manual_seed(config.seed)
    for step in range(0, config.steps, config.replay.steps_per_target):
        plan = plan_step(guidance, step, config.steps, num_timesteps=schedule.num_timesteps, generator=generator)
        counts[target] += 1
        of_inversion = predictor_calls(guidance, plan, schedule) - 1
        counts[inversion] += of_inversion
        inverted_rounds += of_inversion > 0 and target == "conditional" != inversion
    return Calls(
        conditional=counts["conditional"],
        unconditional=counts["unconditional"],
        both=counts["all"],
        perp_neg=counts["perp_neg"],
        inverted_rounds=inverted_rounds,
    )


def _inferring_scale(guidance: GuidanceConfig) -> float:
    """Return the guidance scale at which a noise source calls the predictor, if it does."""
    match guidance.noise:
        case "inversion":
            return guidance.resolved_inversion_scale
        case "interval" | "unconditional":
            return 0.0
        case _:
            return guidance.guidance_scale


def _branches(scale: float, *, perp_neg: bool) -> str:
    needed = needed_branches(scale, perp_neg=perp_neg)
    return "perp_neg" if perp_neg and needed == "all" else needed


@dataclass(frozen=True, kw_only=True)
class Cost:
    """CPU seconds of all threads together; other programs change them much less than wall time."""

    alone: float
    """Seconds of a step without replay and without its calls: render, encode, both with gradients, optimise."""
    first: float
    """Seconds of a round's first step under replay, without its calls: render, encode, decode, optimise."""
    further: float
    """Seconds of a further step of a round: render and optimise."""
    conditional: float
    unconditional: float
    both: float
    new_cameras: float = 0.0
    """Seconds that the first unconditional call for new cameras takes longer than the next: what an exact prior
    prepares for them."""

    def seconds(self, config: RunConfig, schedule: NoiseSchedule) -> float:
        """Return the predicted seconds of a run."""
        calls, rounds = count_calls(config, schedule), rounds_of(config)
        guidance = calls.conditional * self.conditional + calls.unconditional * self.unconditional
        if config == without_replay(config):
            steps = config.steps * self.alone
        else:
            steps = rounds * self.first + (config.steps - rounds) * self.further
        return (
            steps + guidance + (calls.both + 2 * calls.perp_neg) * self.both + calls.inverted_rounds * self.new_cameras
        )


def measure_cost(base: RunConfig) -> Cost:
    """Measure in turns one round with replay, one step without, and one call of every kind; returns medians.

    The prompt is the base's: what a call costs depends on the world that it names.
    """
    guidance = replace(base.guidance, noise="random", perp_neg=False)
    replayed = replace(base, guidance=guidance)
    rounds, inner = FIRST_ROUNDS + MEASURED_ROUNDS, base.replay.steps_per_target
    replayed = replace(replayed, steps=rounds * inner)
    prior = load_prior(replayed, device=CPU)
    with_replay = Trainer(replayed, prior, device=CPU)
    alone = Trainer(replace(without_replay(replayed), steps=rounds), prior, device=CPU)
    for trainer in (with_replay, alone):
        warm_up(trainer)
    calls = _calls_of_every_kind(with_replay, prior)
    rows = []
    for number in range(rounds):
        row = [_cpu_seconds(alone.train_step), _cpu_seconds(with_replay.train_step)]
        further = [_cpu_seconds(with_replay.train_step) for _ in range(inner - 1)]
        row.append(sum(further) / len(further) if further else 0.0)
        if number >= FIRST_ROUNDS:
            rows.append(
                row + [_cpu_seconds(call) for call in calls] + [_new_cameras_seconds(with_replay, prior, number)]
            )
    medians = torch.tensor(rows, dtype=torch.float64).median(dim=0).values.tolist()
    step_alone, first, further_step, conditional, unconditional, both, new_cameras = medians
    # A round of SDS has one call.
    call = {"conditional": conditional, "unconditional": unconditional, "all": both}
    own = call[needed_branches(guidance.guidance_scale)]
    return Cost(
        alone=max(step_alone - own, 0.0),
        first=max(first - own, 0.0),
        further=further_step,
        conditional=conditional,
        unconditional=unconditional,
        both=both,
        new_cameras=max(new_cameras, 0.0),
    )


def _new_cameras_seconds(trainer: Trainer, prior: DiffusionPrior, seed: int) -> float:
    """Return how much longer an unconditional call takes for cameras that the prior has not seen."""
    config, size = trainer.config, prior.image_size
    generator = torch.Generator().manual_seed(seed)
    cameras = sample_cameras(config.cameras, config.views_per_step, width=size, height=size, generator=generator)
    grounds = BACKGROUND_NAMES[:1] * len(cameras)
    conditions = trainer.conditions.for_cameras(cameras, grounds, perp_neg=False)
    images = torch.rand(len(cameras), size, size, 3, generator=generator)
    with torch.no_grad():
        noised = prior.encode_images(images, generator)
    negative, told = conditions.negative_embeddings, conditions.cameras
    first, again = (_cpu_seconds(lambda: prior.predict_noise(noised, 500, negative, told)) for _ in range(2))
    return first - again


def _calls_of_every_kind(trainer: Trainer, prior: DiffusionPrior) -> list[Callable[[], object]]:
    """Return the conditional, unconditional and both branches of a round's views, as guidance passes them."""
    config = trainer.config
    views = config.views_per_step
    draws, size = torch.Generator().manual_seed(config.seed), prior.image_size
    cameras = sample_cameras(config.cameras, views, width=size, height=size, generator=draws)
    grounds: list[BackgroundName] = [BACKGROUND_NAMES[index % len(BACKGROUND_NAMES)] for index in range(views)]
    conditions = trainer.conditions.for_cameras(cameras, grounds, perp_neg=False)
    prompt, negative, told = conditions.prompt_embeddings, conditions.negative_embeddings, conditions.cameras
    generator = torch.Generator().manual_seed(config.seed)
    images = torch.rand(views, prior.image_size, prior.image_size, 3, generator=generator)
    with torch.no_grad():
        noised = prior.encode_images(images, generator)
    joined, embeddings = torch.cat([noised] * 2), torch.cat([prompt, negative])
    return [
        lambda: prior.predict_noise(noised, 500, prompt, told),
        lambda: prior.predict_noise(noised, 500, negative, told),
        lambda: prior.predict_noise(joined, 500, embeddings, told),
    ]


def _cpu_seconds(call: Callable[[], object]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started
