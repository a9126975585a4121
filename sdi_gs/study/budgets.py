"""The steps of an arm for an equal budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import assert_never

from sdi_gs.contracts import NoiseSchedule
from sdi_gs.errors import UserError
from sdi_gs.settings.run import RunConfig
from sdi_gs.study.cost import count_calls
from sdi_gs.study.spec import Budget

MAX_ROUNDS = 100_000

Seconds = Callable[[RunConfig], float]
"""Returns the predicted CPU seconds of a run."""


def budgeted(
    config: RunConfig, reference: RunConfig, budget: Budget, *, schedule: NoiseSchedule, seconds: Seconds
) -> RunConfig:
    """Return an arm's settings with the steps that the budget of the reference arm allows.

    At equal calls an arm with replay also takes the reference's steps, to a whole number for each target. ``schedule``
    is the prior's. Raises UserError for a budget that no number of rounds spends.
    """

    def calls(config: RunConfig) -> float:
        return count_calls(config, schedule).total

    match budget:
        case "steps":
            return config
        case "calls":
            if calls(config) == calls(reference) and config.replay == reference.replay:
                return config
            single = replace(config, replay=replace(config.replay, steps_per_target=1))
            rounds = rounds_for(single, calls(reference), calls)
            has_replay = config.replay.steps_per_target > 1
            inner = max(1, round(reference.steps / rounds)) if has_replay else 1
            return with_rounds(replace(config, replay=replace(config.replay, steps_per_target=inner)), rounds)
        case "time":
            target = seconds(reference)
            if config == reference or seconds(config) == target:
                return config
            return with_rounds(config, rounds_for(config, target, seconds))
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
            raise UserError(f"more than {MAX_ROUNDS} rounds would be needed for the budget {target:g}")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if spent(with_rounds(config, middle)) < target else (low, middle)
    return min((low, high), key=lambda rounds: abs(spent(with_rounds(config, rounds)) - target))
