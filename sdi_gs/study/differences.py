"""Paired differences between arms, their intervals, and what they say of the study's claims.

Letters: P prompts, S seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, assert_never

import numpy as np

from sdi_gs.study.intervals import Interval, bootstrap, holm
from sdi_gs.study.scores import SCORES, value_of
from sdi_gs.study.spec import Budget, Claim, Study

Cell = tuple[str, Budget]
"""An arm's name and a budget."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """A finished run."""

    setting: str
    arm: str
    budget: Budget
    prompt: str
    """Without the setting's style."""
    seed: int
    scores: Mapping[str, Any]
    """Values of the metrics by key, with steps, steps_per_target, predictor_calls and seconds."""


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """Two arms of a setting at a budget, paired by prompt and seed."""

    setting: str
    budget: Budget
    first: str
    second: str


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One score of a claim at one budget."""

    claim: Claim
    budget: Budget
    score: str
    interval: Interval
    corrected_p: float
    """p-value corrected for all findings of the study's claims (Holm)."""


def table_of(results: Sequence[Result], key: str) -> dict[tuple[str, int], float]:
    """Return one score by prompt and seed, without the runs that it does not apply to."""
    found = {(result.prompt, result.seed): value_of(key, result.scores) for result in results}
    return {run: value for run, value in found.items() if value is not None}


def by_prompt(values: Mapping[tuple[str, int], float]) -> np.ndarray:  # [P, S], NaN after a prompt's last seed
    """Arrange the values of runs for the bootstrap."""
    prompts: dict[str, list[float]] = {}
    for prompt, seed in sorted(values):
        prompts.setdefault(prompt, []).append(values[prompt, seed])
    seeds = max(map(len, prompts.values()))
    return np.array([row + [np.nan] * (seeds - len(row)) for row in prompts.values()])


def paired(first: Sequence[Result], second: Sequence[Result], key: str) -> dict[tuple[str, int], float]:
    """Return a score's differences by prompt and seed."""
    one, other = table_of(first, key), table_of(second, key)
    return {run: one[run] - other[run] for run in one if run in other}


def differences(first: Sequence[Result], second: Sequence[Result], keys: Sequence[str]) -> dict[str, Interval]:
    """Return every score's mean paired difference with its interval; without scores that no pair has."""
    pairs = {key: paired(first, second, key) for key in keys}
    return {key: bootstrap(by_prompt(values)) for key, values in pairs.items() if values}


def verdict(found: Mapping[str, Interval]) -> dict[str, list[str]]:
    """Return the scores in which the first arm is ahead of the second, and behind."""
    told: dict[str, list[str]] = {"ahead": [], "behind": []}
    for key, interval in found.items():
        if interval.excludes_zero:
            told["ahead" if interval.mean * SCORES[key].better > 0.0 else "behind"].append(key)
    return told


def cells_of(study: Study, results: Sequence[Result], setting: str) -> dict[Cell, list[Result]]:
    """Return a setting's runs by arm and budget, in the order of tables."""
    cells: dict[Cell, list[Result]] = {(arm.name, budget): [] for budget in study.budgets for arm in study.arms}
    for result in results:
        if result.setting == setting and (result.arm, result.budget) in cells:
            cells[result.arm, result.budget].append(result)
    return {cell: found for cell, found in cells.items() if found}


def contrasts_of(study: Study, results: Sequence[Result]) -> dict[Contrast, dict[str, Interval]]:
    """Return the differences of the study's comparisons and claims between arms that share prompts and seeds."""
    pairs = dict.fromkeys([*study.comparisons, *((claim.first, claim.second) for claim in study.claims)])
    found = {}
    for setting in study.settings:
        cells = cells_of(study, results, setting.name)
        for first, second in pairs:
            for budget in study.budgets:
                if (first, budget) in cells and (second, budget) in cells:
                    measured = differences(cells[first, budget], cells[second, budget], study.scores)
                    contrast = Contrast(setting=setting.name, budget=budget, first=first, second=second)
                    found |= {contrast: measured} if measured else {}
    return found


def contrasts_of_claim(claim: Claim, contrasts: Mapping[Contrast, Any]) -> list[Contrast]:
    """Return the contrasts that a claim is about, one for each budget."""
    wanted = (claim.setting, claim.first, claim.second)
    return [one for one in contrasts if (one.setting, one.first, one.second) == wanted]


def budgets_of_claim(study: Study, claim: Claim) -> set[Budget]:
    """Return the budgets at which the study runs both arms of a claim, in the same block or in two."""
    at: dict[str, set[Budget]] = {claim.first: set(), claim.second: set()}
    for block in study.blocks:
        for arm in at.keys() & set(block.arms):
            if block.setting == claim.setting:
                at[arm].update(block.budgets)
    return at[claim.first] & at[claim.second]


def answer(
    study: Study, claim: Claim, contrasts: Mapping[Contrast, Mapping[str, Interval]]
) -> Literal["yes", "no", "not run", "one prompt"]:
    """Return whether a claim holds, for each of its scores at every budget; one prompt alone does not show it."""
    own = contrasts_of_claim(claim, contrasts)
    if {one.budget for one in own} != budgets_of_claim(study, claim) or not own:
        return "not run"
    if any(contrasts[one][key].single for one in own for key in claim.on if key in contrasts[one]):
        return "one prompt"
    return "yes" if all(_holds(claim, contrasts[one]) for one in own) else "no"


def _holds(claim: Claim, found: Mapping[str, Interval]) -> bool:
    told, on = verdict(found), set(claim.on)
    if claim.nowhere_behind and told["behind"]:
        return False
    match claim.expect:
        case "ahead":
            return on <= set(told["ahead"])
        case "behind":
            return on <= set(told["behind"])
        case "level":
            return on <= set(found) and not on & {*told["ahead"], *told["behind"]}
        case "not behind":
            return on <= set(found) and not on & set(told["behind"])
        case _:
            assert_never(claim.expect)


def findings_of(study: Study, contrasts: Mapping[Contrast, Mapping[str, Interval]]) -> list[Finding]:
    """Return every score of every claim at every budget, with p-values corrected for their number."""
    rows: list[tuple[Claim, Budget, str, Interval]] = [
        (claim, one.budget, key, contrasts[one][key])
        for claim in study.claims
        for one in contrasts_of_claim(claim, contrasts)
        for key in claim.on
        if key in contrasts[one]
    ]
    corrected = holm([interval.p for *_, interval in rows])
    return [
        Finding(claim=claim, budget=budget, score=key, interval=interval, corrected_p=p)
        for (claim, budget, key, interval), p in zip(rows, corrected, strict=True)
    ]
