"""Tables of the comparison: means, paired differences with their intervals, and verdicts.

Letters: P prompts, S seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from evidence_arms import BUDGETS, REFERENCE, Arm, Budget
from evidence_plan import ALL_ARMS, SETTINGS
from intervals import Interval, bootstrap


@dataclass(frozen=True, kw_only=True)
class Row:
    """A finished run."""

    setting: str
    arm: Arm
    budget: Budget
    prompt: str
    """Without the world's style."""
    seed: int
    scores: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Score:
    """A column of the tables."""

    title: str
    form: str
    of: Callable[[Mapping[str, Any]], float | None]
    """The score in a result; None where it does not apply."""
    better: int = 1
    """1 if more is better, -1 if less is."""


SCORES = {
    "psnr_free": Score(title="PSNR", form=".1f", of=lambda row: row["psnr_free"]),
    "iou_free": Score(title="IoU", form=".3f", of=lambda row: row["iou_free"]),
    "detail": Score(title="detail", form=".2f", of=lambda row: row["detail"]),
    "detail_inside": Score(title="detail inside", form=".2f", of=lambda row: row["detail_inside"]),
    "judge_class": Score(title="judge: class", form=".2f", of=lambda row: row["judge_class"]),
    "judge_colour": Score(title="judge: colour", form=".2f", of=lambda row: row["judge_colour"]),
    "judge_view": Score(title="judge: view", form=".2f", of=lambda row: row["judge_view"]),
    "saturation": Score(title="saturation error", form=".3f", of=lambda row: abs(row["saturation_error"]), better=-1),
}

CLAIMED = ("psnr_free", "iou_free", "detail")
"""The scores that H1 needs to be ahead in."""


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """Two arms of a setting at a budget, paired by prompt and seed."""

    setting: str
    budget: Budget
    first: Arm
    second: Arm

    @property
    def title(self) -> str:
        """Return the row's words."""
        return f"{self.first.title} minus {self.second.title}"


PAIRS = (
    *((Arm(noise="sdi", replay=replay), Arm(noise="sds-annealed", replay=replay)) for replay in (True, False)),
    *((Arm(noise=noise), Arm(noise=noise, replay=False)) for noise in ("sdi", "sds-annealed")),
    (REFERENCE, Arm(noise="sdi-other")),
    (REFERENCE, Arm(noise="sdi-0")),
    (Arm(noise="sdi-0"), Arm(noise="sdi-plus-1")),
    (REFERENCE, Arm(noise="ism")),
    (REFERENCE, Arm(noise="sds")),
    (Arm(noise="sds-annealed"), Arm(noise="sds")),
)
"""The effects of inversion, of replay, of the order, of the inversion's scale and of annealing."""


def table_of(rows: Sequence[Row], score: Score) -> dict[tuple[str, int], float]:
    """Return one score by prompt and seed, without the runs that it does not apply to."""
    found = {(row.prompt, row.seed): score.of(row.scores) for row in rows}
    return {key: float(value) for key, value in found.items() if value is not None}


def by_prompt(values: Mapping[tuple[str, int], float]) -> np.ndarray:  # [P, S], NaN after a prompt's last seed
    """Arrange the values of runs for the bootstrap."""
    prompts: dict[str, list[float]] = {}
    for prompt, seed in sorted(values):
        prompts.setdefault(prompt, []).append(values[prompt, seed])
    seeds = max(map(len, prompts.values()))
    return np.array([row + [np.nan] * (seeds - len(row)) for row in prompts.values()])


def differences(first: Sequence[Row], second: Sequence[Row]) -> dict[str, Interval]:
    """Return every score's mean paired difference with its interval; without scores that no pair has."""
    found = {}
    for key, score in SCORES.items():
        one, other = table_of(first, score), table_of(second, score)
        pairs = {run: one[run] - other[run] for run in one if run in other}
        if pairs:
            found[key] = bootstrap(by_prompt(pairs))
    return found


def verdict(found: Mapping[str, Interval]) -> dict[str, list[str]]:
    """Return the scores in which the first arm is ahead of the second, and behind."""
    told: dict[str, list[str]] = {"ahead": [], "behind": []}
    for key, interval in found.items():
        if interval.excludes_zero:
            told["ahead" if interval.mean * SCORES[key].better > 0.0 else "behind"].append(key)
    return told


def claim_holds(verdicts: Sequence[Mapping[str, Sequence[str]]]) -> bool:
    """Return H1's answer, from the verdicts on SDI minus annealed SDS at both budgets."""
    return len(verdicts) == len(BUDGETS) and all(
        not found["behind"] and set(CLAIMED) <= set(found["ahead"]) for found in verdicts
    )


def arms_of(rows: Sequence[Row], setting: str) -> dict[tuple[Arm, Budget], list[Row]]:
    """Return a setting's runs by arm and budget, in the order of tables."""
    cells: dict[tuple[Arm, Budget], list[Row]] = {(arm, budget): [] for budget in BUDGETS for arm in ALL_ARMS}
    for row in rows:
        if row.setting == setting:
            cells[row.arm, row.budget].append(row)
    return {cell: found for cell, found in cells.items() if found}


def contrasts_of(rows: Sequence[Row]) -> dict[Contrast, dict[str, Interval]]:
    """Return all differences between arms that both have runs of the same prompts."""
    found = {}
    for setting in SETTINGS:
        cells = arms_of(rows, setting)
        for first, second in PAIRS:
            for budget in BUDGETS:
                if (first, budget) in cells and (second, budget) in cells:
                    measured = differences(cells[first, budget], cells[second, budget])
                    contrast = Contrast(setting=setting, budget=budget, first=first, second=second)
                    found |= {contrast: measured} if measured else {}
    return found


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Return all means, differences and verdicts as plain values."""
    contrasts = contrasts_of(rows)
    return {
        "arms": {
            f"{setting} {arm.name} {budget}": {"runs": len(found)} | _means(found)
            for setting in SETTINGS
            for (arm, budget), found in arms_of(rows, setting).items()
        },
        "differences": {
            f"{one.setting} {one.budget}: {one.first.name} minus {one.second.name}": {
                "scores": {key: asdict(value) for key, value in found.items()}
            }
            | verdict(found)
            for one, found in contrasts.items()
        },
        "H1": claim_holds(core_verdicts(contrasts)),
    }


def core_verdicts(contrasts: Mapping[Contrast, Mapping[str, Interval]]) -> list[dict[str, list[str]]]:
    """Return the verdicts that H1 is about."""
    wanted = ("detailed-cameras", REFERENCE, Arm(noise="sds-annealed"))
    return [verdict(found) for one, found in contrasts.items() if (one.setting, one.first, one.second) == wanted]


def page_tables(rows: Sequence[Row]) -> str:
    """Format everything as Markdown."""
    contrasts, parts = contrasts_of(rows), []
    for setting in SETTINGS:
        cells = arms_of(rows, setting)
        if cells:
            own = {one: found for one, found in contrasts.items() if one.setting == setting}
            parts += [f"### {setting}", "", arm_table(cells), ""]
            parts += [difference_table(own, cells), ""] if own else []
    parts += ["### Prompt by prompt", "", prompt_table(rows), ""]
    return "\n".join(parts)


def arm_table(cells: Mapping[tuple[Arm, Budget], Sequence[Row]]) -> str:
    """Format a row per arm and budget: costs and mean scores."""
    titles = ["arm", "equal", "runs", "steps × per target", "calls", "CPU s", "PSNR fixed yaw"]
    lines = [_line(*titles, *(score.title for score in SCORES.values()))]
    lines.append("|---" * (len(titles) + len(SCORES)) + "|")
    for (arm, budget), rows in cells.items():
        means, first = _means(rows), rows[0].scores
        costs = [f"{first['steps']} × {first['steps_per_target']}"]
        costs += [f"{means[key]:.0f}" for key in ("predictor_calls", "loop_cpu_seconds")]
        scores = [format(means[key], score.form) if key in means else "–" for key, score in SCORES.items()]
        fixed = f"{means['psnr_best']:.1f}"
        lines.append(_line(arm.title, budget, str(len(rows)), *costs, fixed, *scores))
    return "\n".join(lines)


def difference_table(
    contrasts: Mapping[Contrast, Mapping[str, Interval]], cells: Mapping[tuple[Arm, Budget], Sequence[Row]]
) -> str:
    """Format a row per contrast; bold where the interval excludes 0."""
    lines = [_line("difference", "equal", "pairs", *(score.title for score in SCORES.values()), "verdict")]
    lines.append("|---" * (len(SCORES) + 4) + "|")
    for one, found in contrasts.items():
        runs = [{(row.prompt, row.seed) for row in cells[arm, one.budget]} for arm in (one.first, one.second)]
        values = [_cell(found.get(key), score.form) for key, score in SCORES.items()]
        told = [
            f"{word} in {', '.join(SCORES[k].title for k in keys)}" for word, keys in verdict(found).items() if keys
        ]
        pairs = str(len(runs[0] & runs[1]))
        lines.append(_line(one.title, one.budget, pairs, *values, "; ".join(told) or "level"))
    return "\n".join(lines)


def prompt_table(rows: Sequence[Row]) -> str:
    """Format SDI and annealed SDS, both with replay, at equal time, means over the seeds."""
    titles = [f"{setting}: {SCORES[key].title}" for setting in SETTINGS for key in ("psnr_free", "detail")]
    lines = [_line("SDI / annealed SDS", *titles), "|---" * (1 + len(titles)) + "|"]
    for prompt in dict.fromkeys(row.prompt for row in rows):
        cells = []
        for setting in SETTINGS:
            found = arms_of([row for row in rows if row.prompt == prompt], setting)
            for key in ("psnr_free", "detail"):
                pair = [found.get((Arm(noise=noise), "time"), []) for noise in ("sdi", "sds-annealed")]
                means = [format(_means(part)[key], SCORES[key].form) for part in pair if part]
                cells.append(" / ".join(means) if len(means) == len(pair) else "–")
        lines.append(_line(prompt, *cells))
    return "\n".join(lines)


def _means(rows: Sequence[Row]) -> dict[str, float]:
    """Return the mean costs and scores of runs, each over those that it applies to."""
    found = {key: list(table_of(rows, score).values()) for key, score in SCORES.items()}
    for key in ("predictor_calls", "loop_cpu_seconds", "psnr_best"):
        found[key] = [float(row.scores[key]) for row in rows if row.scores.get(key) is not None]
    return {key: float(np.mean(values)) for key, values in found.items() if values}


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(found: Interval | None, form: str) -> str:
    if found is None:
        return "–"
    form = f"+{form}"
    mean = format(found.mean, form)
    shown = f"**{mean}**" if found.excludes_zero else mean
    return f"{shown} [{format(found.low, form)}, {format(found.high, form)}]"
