"""The arms of the comparison, and their steps for an equal budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, assert_never, get_args

from evidence_cost import Cost, count_calls, without_replay

from sdi_gs.contracts import NoiseSchedule
from sdi_gs.settings.guidance import InversionOrder
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tree import with_values

Budget = Literal["time", "calls"]
BUDGETS: tuple[Budget, ...] = get_args(Budget)

NOISES = {
    "sds": "SDS, t uniform",
    "sds-annealed": "SDS, t annealed",
    "sdi": "SDI",
    "sdi-other": "SDI, other order",
    "sdi-0": "inversion, γ_inv = 0",
    "sdi-plus-1": "inversion, γ_inv = +1",
    "ism": "ISM-like",
}
"""What distinguishes the arms, by name."""

INVERTING = ("sdi", "sdi-other", "sdi-0", "sdi-plus-1")
"""Arms whose noise is an inversion under guidance."""

FIRST_ORDER_ETA = 0.3
"""eta as published, which is for the first order."""

MAX_ROUNDS = 100_000


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to compute targets, with the preset's replay or without."""

    noise: str
    """A name in ``NOISES``."""
    replay: bool = True

    @property
    def name(self) -> str:
        """Return the name of its folder."""
        return self.noise if self.replay else f"{self.noise}-no-replay"

    @property
    def title(self) -> str:
        """Return its name in tables."""
        return NOISES[self.noise] if self.replay else f"{NOISES[self.noise]}, no replay"


REFERENCE = Arm(noise="sdi")
"""The arm that takes the preset's steps and sets the budget of all others."""


def arm_config(base: RunConfig, arm: Arm, suited: Mapping[str, object] | None = None) -> RunConfig:
    """Return the base with the arm's noise and replay.

    Everything else is common to all arms, but for the settings that ``suited`` SDI better when each method was tuned:
    arms that invert with guidance have them, by their dotted names.
    """
    if arm.noise in INVERTING:
        base = with_values(base, dict(suited or {}))
    inverting = replace(base.guidance, noise="inversion", inversion_guidance_scale=None)
    match arm.noise:
        case "sds":
            guidance = replace(base.guidance, noise="random", annealing="uniform")
        case "sds-annealed":
            guidance = replace(base.guidance, noise="random")
        case "sdi":
            guidance = inverting
        case "sdi-other":
            order: InversionOrder = 1 if inverting.inversion_order == 2 else 2
            eta = FIRST_ORDER_ETA if order == 1 else 0.0
            guidance = replace(inverting, inversion_order=order, inversion_spacing=None, inversion_eta=eta)
        case "sdi-0":
            guidance = replace(inverting, inversion_guidance_scale=0.0)
        case "sdi-plus-1":
            guidance = replace(inverting, inversion_guidance_scale=1.0)
        case "ism":
            guidance = replace(base.guidance, noise="interval")
        case _:
            raise SystemExit(f'unknown arm "{arm.noise}"; known: {", ".join(NOISES)}')
    config = replace(base, guidance=guidance)
    return config if arm.replay else without_replay(config)


def budgeted(
    base: RunConfig,
    arm: Arm,
    budget: Budget,
    *,
    schedule: NoiseSchedule,
    cost: Cost,
    suited: Mapping[str, object] | None = None,
) -> RunConfig:
    """Return the arm with the steps that the budget of the reference arm allows, which has the setting's steps.

    At equal calls an arm with replay also takes the reference's steps, to a whole number for each target.
    """
    reference, config = (arm_config(base, one, suited) for one in (REFERENCE, arm))

    def calls(config: RunConfig) -> float:
        return count_calls(config, schedule).total

    match budget:
        case "calls":
            if calls(config) == calls(reference) and config.replay == reference.replay:
                return config
            single = replace(config, replay=replace(config.replay, steps_per_target=1))
            rounds = rounds_for(single, calls(reference), calls)
            inner = max(1, round(reference.steps / rounds)) if arm.replay else 1
            return with_rounds(replace(config, replay=replace(config.replay, steps_per_target=inner)), rounds)
        case "time":
            seconds = cost.seconds(reference, schedule)
            if cost.seconds(config, schedule) == seconds:
                return config
            rounds = rounds_for(config, seconds, lambda config: cost.seconds(config, schedule))
            return with_rounds(config, rounds)
        case _:
            assert_never(budget)


def with_rounds(config: RunConfig, rounds: int) -> RunConfig:
    """Return the settings with the steps of a number of whole rounds."""
    return replace(config, steps=rounds * config.replay.steps_per_target)


def rounds_for(config: RunConfig, target: float, spent: Callable[[RunConfig], float]) -> int:
    """Return the number of rounds whose cost is closest to the target."""
    low, high = 1, 1
    while spent(with_rounds(config, high)) < target:
        low, high = high, 2 * high
        if high > MAX_ROUNDS:
            raise SystemExit(f"more than {MAX_ROUNDS} rounds would be needed for the budget {target:g}")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if spent(with_rounds(config, middle)) < target else (low, middle)
    return min((low, high), key=lambda rounds: abs(spent(with_rounds(config, rounds)) - target))
