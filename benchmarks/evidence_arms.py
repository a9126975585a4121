"""The arms of the comparison, the costs of their runs, and their steps for an equal budget."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, assert_never, get_args

import torch
from scored_runs import CPU, PROMPTS, warm_up

from sdi_gs.cameras import sample_cameras
from sdi_gs.contracts import DiffusionPrior, NoiseSchedule
from sdi_gs.guidance.guided_predictor import needed_branches
from sdi_gs.guidance.score_distillation import predictor_calls
from sdi_gs.guidance.step_plan import plan_step
from sdi_gs.priors.catalog import load_prior
from sdi_gs.settings.backgrounds import BackgroundName
from sdi_gs.settings.guidance import GuidanceConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.training.trainer import Trainer

Budget = Literal["calls", "time", "steps"]
BUDGETS: tuple[Budget, ...] = get_args(Budget)

REFERENCE = "sdi"
ARMS = {
    "sds": "SDS, t uniform",
    "sds-annealed": "SDS, t annealed",
    "sdi": "SDI, γ_inv = −γ",
    "sdi-minus-1": "inversion, γ_inv = −1",
    "sdi-0": "inversion, γ_inv = 0",
    "sdi-plus-1": "inversion, γ_inv = +1",
}

ROUNDS = 8
MAX_STEPS = 100_000


def arm_config(base: RunConfig, arm: str) -> RunConfig:
    """Return the preset with the arm's noise; everything else is common to all arms."""
    guidance = base.guidance
    inverting = replace(guidance, noise="inversion")
    match arm:
        case "sds":
            return replace(base, guidance=replace(guidance, noise="random", annealing="uniform"))
        case "sds-annealed":
            return replace(base, guidance=replace(guidance, noise="random"))
        case "sdi":
            return replace(base, guidance=replace(inverting, inversion_guidance_scale=None))
        case "sdi-minus-1":
            return replace(base, guidance=replace(inverting, inversion_guidance_scale=-1.0))
        case "sdi-0":
            return replace(base, guidance=replace(inverting, inversion_guidance_scale=0.0))
        case "sdi-plus-1":
            return replace(base, guidance=replace(inverting, inversion_guidance_scale=1.0))
        case _:
            raise SystemExit(f'unknown arm "{arm}"; known: {", ".join(ARMS)}')


def distinct_arms(base: RunConfig, arms: list[str]) -> list[str]:
    """Return the arms without duplicates: at gamma 1, gamma_inv = -1 is -gamma."""
    kept: dict[str, GuidanceConfig] = {}
    for arm in arms:
        guidance = arm_config(base, arm).guidance
        if guidance.noise == "inversion":
            guidance = replace(guidance, inversion_guidance_scale=guidance.resolved_inversion_scale)
        if guidance not in kept.values():
            kept[arm] = guidance
    return list(kept)


@dataclass(frozen=True, kw_only=True)
class Calls:
    """Predictor calls of a run by evaluated branches; one call covers all views of a step."""

    conditional: int = 0
    unconditional: int = 0
    both: int = 0

    @property
    def total(self) -> int:
        """Return the calls counted in a run's log."""
        return self.conditional + self.unconditional + self.both


def count_calls(config: RunConfig, schedule: NoiseSchedule) -> Calls:
    """Return the calls that a run will make, from its schedule and without a prior.

    Raises SystemExit for guidance with unknown calls.
    """
    guidance = config.guidance
    if guidance.perp_neg or guidance.noise not in ("inversion", "random"):
        raise SystemExit(f"no budget for noise {guidance.noise} with perp_neg {guidance.perp_neg}")
    target, inversion = (
        needed_branches(scale) for scale in (guidance.guidance_scale, guidance.resolved_inversion_scale)
    )
    counts = {"conditional": 0, "unconditional": 0, "all": 0}
    generator = torch.Generator().manual_seed(config.seed)
    for step in range(config.steps):
        plan = plan_step(guidance, step, config.steps, num_timesteps=schedule.num_timesteps, generator=generator)
        counts[target] += 1
        counts[inversion] += predictor_calls(guidance, plan, schedule) - 1
    return Calls(conditional=counts["conditional"], unconditional=counts["unconditional"], both=counts["all"])


@dataclass(frozen=True, kw_only=True)
class Cost:
    """CPU seconds of all threads together; other programs change them much less than wall time."""

    step: float
    """Seconds of a step without its predictor calls: render, encode, backward, optimise."""
    conditional: float
    unconditional: float
    both: float

    def seconds(self, config: RunConfig, schedule: NoiseSchedule) -> float:
        """Return the predicted seconds of a run."""
        calls = count_calls(config, schedule)
        guidance = calls.conditional * self.conditional + calls.unconditional * self.unconditional
        return config.steps * self.step + guidance + calls.both * self.both


def measure_cost(base: RunConfig) -> Cost:
    """Measure in several rounds, each with one SDS step and one call of every kind; returns medians."""
    config = arm_config(replace(base, prompt=base.prompt or PROMPTS[0], steps=ROUNDS), "sds")
    prior = load_prior(config, device=CPU)
    trainer = Trainer(config, prior, device=torch.device("cpu"))
    warm_up(trainer)
    calls = _calls_of_every_kind(trainer, prior)
    rows = [[_cpu_seconds(trainer.train_step), *map(_cpu_seconds, calls)] for _ in range(ROUNDS)]
    step, conditional, unconditional, both = torch.tensor(rows, dtype=torch.float64).median(dim=0).values.tolist()
    costs = {"conditional": conditional, "unconditional": unconditional, "all": both}
    # A step is an SDS step less its one call.
    rest = max(step - costs[needed_branches(config.guidance.guidance_scale)], 0.0)
    return Cost(step=rest, conditional=conditional, unconditional=unconditional, both=both)


def _calls_of_every_kind(trainer: Trainer, prior: DiffusionPrior) -> list[Callable[[], object]]:
    """Return the conditional, unconditional and both branches of a step's views, as guidance passes them."""
    views, config = trainer.config.views_per_step, trainer.config
    grounds: list[BackgroundName] = [config.backgrounds[index % len(config.backgrounds)] for index in range(views)]
    generator = torch.Generator().manual_seed(config.seed)
    size = prior.image_size
    cameras = sample_cameras(config.cameras, views, width=size, height=size, generator=generator)
    told = trainer.conditions.for_cameras(cameras, grounds, perp_neg=False)
    conditional, unconditional = told.prompt_embeddings, told.negative_embeddings
    images = torch.rand(views, prior.image_size, prior.image_size, 3, generator=generator)
    with torch.no_grad():
        noised = prior.encode_images(images, generator)
    return [
        lambda: prior.predict_noise(noised, 500, conditional, told.cameras),
        lambda: prior.predict_noise(noised, 500, unconditional, told.cameras),
        lambda: prior.predict_noise(
            torch.cat([noised] * 2), 500, torch.cat([conditional, unconditional]), told.cameras
        ),
    ]


def _cpu_seconds(call: Callable[[], object]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def steps_for(config: RunConfig, target: float, spent: Callable[[RunConfig], float]) -> int:
    """Return the number of steps whose cost is closest to the target."""
    low, high = 1, 1
    while spent(replace(config, steps=high)) < target:
        low, high = high, 2 * high
        if high > MAX_STEPS:
            raise SystemExit(f"more than {MAX_STEPS} steps would be needed for the budget {target:g}")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if spent(replace(config, steps=middle)) < target else (low, middle)
    return min((low, high), key=lambda steps: abs(spent(replace(config, steps=steps)) - target))


def budgeted(base: RunConfig, arm: str, budget: Budget, *, schedule: NoiseSchedule, cost: Cost | None) -> RunConfig:
    """Return the arm with as many steps as the budget of the reference arm allows, which has the preset's steps."""

    def spent(config: RunConfig) -> float:
        match budget:
            case "calls":
                return count_calls(config, schedule).total
            case "time":
                assert cost is not None
                return cost.seconds(config, schedule)
            case "steps":
                return config.steps
            case _:
                assert_never(budget)

    reference, config = arm_config(base, REFERENCE), arm_config(base, arm)
    target = spent(reference)
    # The preset's number if it fits, as for every arm with the same costs.
    return config if spent(config) == target else replace(config, steps=steps_for(config, target, spent))
