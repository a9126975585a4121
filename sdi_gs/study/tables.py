"""Tables of a study as Markdown: means, paired differences, claims, prompt by prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sdi_gs.study.differences import (
    Cell,
    Contrast,
    Result,
    answer,
    cells_of,
    contrasts_of,
    findings_of,
    table_of,
    verdict,
)
from sdi_gs.study.intervals import Interval, share_interval
from sdi_gs.study.scores import SCORES
from sdi_gs.study.spec import Expectation, PromptTable, Study

_TIMES = {"loop_cpu_seconds": "CPU s", "predicted_cpu_seconds": "CPU s, predicted", "seconds": "s"}
"""Titles of the seconds: of the processor as stored comparisons measured them, as runs are planned by, on the wall."""
_WORDS: Mapping[Expectation, str] = {
    "ahead": "ahead of",
    "behind": "behind",
    "level": "level with",
    "not behind": "not behind",
}
COSTS = ("predictor_calls", *_TIMES)


def page_tables(study: Study, results: Sequence[Result]) -> str:
    """Return the tables of all settings, and the one prompt by prompt."""
    contrasts, parts = contrasts_of(study, results), []
    for setting in study.settings:
        cells = cells_of(study, results, setting.name)
        if cells:
            own = {one: found for one, found in contrasts.items() if one.setting == setting.name}
            parts += [f"### {setting.name}", ""] if len(study.settings) > 1 else []
            parts += [arm_table(study, cells), ""]
            parts += [difference_table(study, own, cells), ""] if own else []
    if study.prompt_table is not None:
        parts += ["### Prompt by prompt", "", prompt_table(study, study.prompt_table, results), ""]
    return "\n".join(parts)


def arm_table(study: Study, cells: Mapping[Cell, Sequence[Result]]) -> str:
    """Format a row per arm and budget: costs and mean scores."""
    time = next((key for key in _TIMES if _all_have(cells, key)), "seconds")
    titles = ["arm", "equal", "runs", "steps × per target", "calls", _TIMES[time]]
    titles += [SCORES[key].title for key in (*study.means, *study.scores)]
    lines = [_line(*titles), "|---" * len(titles) + "|"]
    for (arm, budget), results in cells.items():
        means, first = means_of(results, (*study.means, *study.scores)), results[0].scores
        costs = [f"{first['steps']} × {first['steps_per_target']}"]
        costs += [f"{means[key]:.0f}" if key in means else "–" for key in ("predictor_calls", time)]
        scores = [_mean(results, key, means) for key in (*study.means, *study.scores)]
        lines.append(_line(study.arm(arm).title, budget, str(len(results)), *costs, *scores))
    return "\n".join(lines)


def _mean(results: Sequence[Result], key: str, means: Mapping[str, float]) -> str:
    """Format a mean, with its interval if it is a share of runs."""
    if key not in means:
        return "–"
    shown = format(means[key], SCORES[key].form)
    if not SCORES[key].is_share:
        return shown
    values = table_of(results, key).values()
    low, high = share_interval(round(sum(values)), len(values))
    return f"{shown} [{format(low, SCORES[key].form)}, {format(high, SCORES[key].form)}]"


def difference_table(
    study: Study, contrasts: Mapping[Contrast, Mapping[str, Interval]], cells: Mapping[Cell, Sequence[Result]]
) -> str:
    """Format a row per contrast; bold where the interval excludes 0."""
    lines = [_line("difference", "equal", "pairs", *(SCORES[key].title for key in study.scores), "verdict")]
    lines.append("|---" * (len(study.scores) + 4) + "|")
    for one, found in contrasts.items():
        runs = [{(run.prompt, run.seed) for run in cells[arm, one.budget]} for arm in (one.first, one.second)]
        values = [_cell(found.get(key), SCORES[key].form) for key in study.scores]
        told = [
            f"{word} in {', '.join(SCORES[k].title for k in keys)}" for word, keys in verdict(found).items() if keys
        ]
        title = f"{study.arm(one.first).title} minus {study.arm(one.second).title}"
        lines.append(_line(title, one.budget, str(len(runs[0] & runs[1])), *values, "; ".join(told) or "level"))
    return "\n".join(lines)


def claim_tables(study: Study, results: Sequence[Result]) -> str:
    """Format what was expected and whether it holds, and every score of it with p-values; empty without claims."""
    if not study.claims:
        return ""
    contrasts = contrasts_of(study, results)
    lines = [_line("claim", "setting", "expected", "holds"), "|---|---|---|---|"]
    for claim in study.claims:
        words = f"{study.arm(claim.first).title} {_WORDS[claim.expect]} {study.arm(claim.second).title}"
        on = ", ".join(SCORES[key].title for key in claim.on)
        words = f"{words} in {on}{', and behind in no other score' if claim.nowhere_behind else ''}"
        lines.append(_line(claim.name, claim.setting, words, answer(study, claim, contrasts)))
    findings = findings_of(study, contrasts)
    if findings:
        lines += ["", _line("claim", "equal", "score", "difference", "p", f"p, Holm of {len(findings)}")]
        lines.append("|---|---|---|---|---|---|")
    for found in findings:
        score = SCORES[found.score]
        shown = _cell(found.interval, score.form)
        values = (f"{found.interval.p:.4f}", f"{found.corrected_p:.4f}")
        lines.append(_line(found.claim.name, found.budget, score.title, shown, *values))
    return "\n".join(lines)


def prompt_table(study: Study, wanted: PromptTable, results: Sequence[Result]) -> str:
    """Format two arms at a budget prompt by prompt, means over the seeds."""
    names = [setting.name for setting in study.settings]
    titles = [f"{setting}: {SCORES[key].title}" for setting in names for key in wanted.scores]
    lines = [_line(wanted.title, *titles), "|---" * (1 + len(titles)) + "|"]
    for prompt in dict.fromkeys(result.prompt for result in results):
        cells = []
        for setting in names:
            found = cells_of(study, [result for result in results if result.prompt == prompt], setting)
            for key in wanted.scores:
                pair = [found.get((arm, wanted.budget), []) for arm in wanted.arms]
                means = [format(means_of(part, (key,))[key], SCORES[key].form) for part in pair if part]
                cells.append(" / ".join(means) if len(means) == len(pair) else "–")
        lines.append(_line(prompt, *cells))
    return "\n".join(lines)


def means_of(results: Sequence[Result], keys: Sequence[str]) -> dict[str, float]:
    """Return the mean costs and scores of runs, each over those that it applies to."""
    found = {key: list(table_of(results, key).values()) for key in keys}
    for key in COSTS:
        found[key] = [float(run.scores[key]) for run in results if run.scores.get(key) is not None]
    return {key: float(np.mean(values)) for key, values in found.items() if values}


def _all_have(cells: Mapping[Cell, Sequence[Result]], key: str) -> bool:
    return all(run.scores.get(key) is not None for results in cells.values() for run in results)


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(found: Interval | None, form: str) -> str:
    if found is None:
        return "–"
    form = f"+{form}"
    mean = format(found.mean, form)
    shown = f"**{mean}**" if found.excludes_zero else mean
    if found.single:
        return shown
    return f"{shown} [{format(found.low, form)}, {format(found.high, form)}]"
