"""Tables of the comparison: means with their intervals, paired differences, and the reference arm's prompts.

Letters: P prompts, S seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from evidence_arms import ARMS, REFERENCE
from intervals import Interval, bootstrap

Rows = Sequence[Mapping[str, Any]]
"""Results of one arm, seed by seed and prompt by prompt within each."""

SCORES = {
    "psnr_best": ("PSNR", ".1f"),
    "iou_best": ("IoU", ".3f"),
    "judge_class": ("judge: class", ".2f"),
    "judge_colour": ("judge: colour", ".2f"),
    "judge_view": ("judge: view", ".2f"),
    "sharpness_ratio": ("sharpness", ".2f"),
    "saturation_error": ("saturation", ".3f"),
}
COSTS = {
    "steps": ("steps", ".0f"),
    "predictor_calls": ("calls", ".0f"),
    "loop_cpu_seconds": ("CPU s", ".0f"),
}

CONTRASTS = (
    ("sds-annealed", "sds"),
    (REFERENCE, "sds"),
    (REFERENCE, "sds-annealed"),
    (REFERENCE, "sdi-minus-1"),
    (REFERENCE, "sdi-0"),
    (REFERENCE, "sdi-plus-1"),
)
"""The effects of annealing, of inversion beyond it, and of its scale."""

HEADINGS = {"calls": "Equal predictor calls", "time": "Equal CPU time", "steps": "Equal steps"}


def scores_of(rows: Rows, key: str, seeds: int) -> np.ndarray | None:  # [P, S]
    """Return one score of every run, without prompts that it does not apply to; None if no others exist."""
    table = np.array([np.nan if row[key] is None else float(row[key]) for row in rows]).reshape(seeds, -1).T
    applies = ~np.isnan(table).any(axis=1)
    return table[applies] if applies.any() else None


def intervals_of(rows: Rows, seeds: int) -> dict[str, Interval]:
    """Return every score's mean with its interval."""
    tables = {key: scores_of(rows, key, seeds) for key in SCORES}
    return {key: bootstrap(table) for key, table in tables.items() if table is not None}


def differences(first: Rows, second: Rows, seeds: int) -> dict[str, Interval]:
    """Return every score's mean difference over pairs of prompt and seed, with its interval."""
    found = {}
    for key in SCORES:
        one, other = scores_of(first, key, seeds), scores_of(second, key, seeds)
        if one is not None and other is not None:
            found[key] = bootstrap(one - other)
    return found


def summary(results: Mapping[str, Mapping[str, Rows]], *, seeds: int) -> dict[str, Any]:
    """Return means, intervals and differences by budget."""
    return {
        budget: {
            "arms": {
                arm: {key: asdict(value) for key, value in intervals_of(rows, seeds).items()}
                | {key: float(np.mean([row[key] for row in rows])) for key in COSTS}
                | {"runs": len(rows)}
                for arm, rows in by_arm.items()
            },
            "differences": {
                f"{first} minus {second}": {
                    key: asdict(value) for key, value in differences(by_arm[first], by_arm[second], seeds).items()
                }
                for first, second in contrasts(by_arm)
            },
        }
        for budget, by_arm in results.items()
    }


def contrasts(by_arm: Mapping[str, Rows]) -> list[tuple[str, str]]:
    """Return the pairs of arms that both have results."""
    return [pair for pair in CONTRASTS if set(pair) <= set(by_arm)]


def page_tables(results: Mapping[str, Mapping[str, Rows]], *, seeds: int) -> str:
    """Format everything as Markdown."""
    parts = []
    for budget, by_arm in results.items():
        runs = len(next(iter(by_arm.values())))
        words = f"{runs // seeds} prompts, {seeds} seed{'s' if seeds > 1 else ''}"
        parts += [f"**{HEADINGS[budget]}**, {runs} runs an arm ({words}).", ""]
        parts += [arm_table(by_arm, seeds), ""]
        if contrasts(by_arm):
            parts += ["Differences of paired runs; bold where the interval excludes 0.", ""]
            parts += [difference_table(by_arm, seeds), ""]
    by_arm = results.get("calls", {})
    if REFERENCE in by_arm:
        parts += [
            f"**{ARMS[REFERENCE]}, prompt by prompt**, means over the seeds.",
            "",
            prompt_table(by_arm[REFERENCE]),
        ]
    return "\n".join(parts) + "\n"


def arm_table(by_arm: Mapping[str, Rows], seeds: int) -> str:
    """Format a row per arm: costs and scores."""
    lines = [_line("arm", *(title for title, _ in (COSTS | SCORES).values()))]
    lines.append("|---" * (1 + len(COSTS) + len(SCORES)) + "|")
    for arm, rows in by_arm.items():
        found = intervals_of(rows, seeds)
        costs = [format(np.mean([row[key] for row in rows]), form) for key, (_, form) in COSTS.items()]
        lines.append(_line(ARMS[arm], *costs, *(_cell(found.get(key), form) for key, (_, form) in SCORES.items())))
    return "\n".join(lines)


def difference_table(by_arm: Mapping[str, Rows], seeds: int) -> str:
    """Format a row per contrast."""
    lines = [_line("difference", *(title for title, _ in SCORES.values())), "|---" * (1 + len(SCORES)) + "|"]
    for first, second in contrasts(by_arm):
        found = differences(by_arm[first], by_arm[second], seeds)
        cells = (_cell(found.get(key), f"+{form}", emphasise=True) for key, (_, form) in SCORES.items())
        lines.append(_line(f"{ARMS[first]} minus {ARMS[second]}", *cells))
    return "\n".join(lines)


def prompt_table(rows: Rows) -> str:
    """Format a row per prompt of one arm."""
    lines = [_line("prompt", *(title for title, _ in SCORES.values())), "|---" * (1 + len(SCORES)) + "|"]
    for prompt in dict.fromkeys(row["prompt"] for row in rows):
        cells = []
        for key, (_, form) in SCORES.items():
            values = [row[key] for row in rows if row["prompt"] == prompt and row[key] is not None]
            cells.append(format(np.mean(values), form) if values else "–")
        lines.append(_line(prompt, *cells))
    return "\n".join(lines)


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(found: Interval | None, form: str, *, emphasise: bool = False) -> str:
    if found is None:
        return "–"
    mean = format(found.mean, form)
    shown = f"**{mean}**" if emphasise and found.excludes_zero else mean
    return f"{shown} [{format(found.low, form)}, {format(found.high, form)}]"
