"""Figures of a study: paired differences, or means, with their intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdi_gs.errors import UserError
from sdi_gs.evaluation.plots import new_figure, save_figure
from sdi_gs.study.differences import Cell, Contrast, Result, by_prompt, cells_of, contrasts_of, paired, table_of
from sdi_gs.study.intervals import bootstrap
from sdi_gs.study.scores import SCORES
from sdi_gs.study.spec import Budget, Study

MOST_PANELS = 4
"""Scores that a figure shows."""


def write_figures(study: Study, results: Sequence[Result], out: Path, *, say: Callable[[str], None]) -> list[Path]:
    """Draw a figure per setting; without matplotlib one line says how to get it."""
    contrasts, paths = contrasts_of(study, results), []
    for setting in study.settings:
        cells = cells_of(study, results, setting.name)
        if not cells:
            continue
        path = out / f"figure-{setting.name}.svg"
        rows = figure_rows(study, cells, [one for one in contrasts if one.setting == setting.name])
        try:
            save_intervals(study, rows, path)
        except UserError as error:
            say(str(error))
            return []
        paths.append(path)
    return paths


@dataclass(frozen=True, kw_only=True)
class FigureRow:
    """A row of a figure."""

    title: str
    budget: Budget
    values: Mapping[str, Mapping[tuple[str, int], float]]
    """By score, then by prompt and seed."""
    is_difference: bool


def figure_rows(study: Study, cells: Mapping[Cell, Sequence[Result]], contrasts: Sequence[Contrast]) -> list[FigureRow]:
    """Return a row per contrast of a setting; of a study without any, a row per arm and budget."""
    keys, several = study.scores[:MOST_PANELS], len(study.budgets) > 1

    def title(words: str, budget: Budget) -> str:
        return f"{words}, equal {budget}" if several else words

    if not contrasts:
        return [
            FigureRow(
                title=title(study.arm(arm).title, budget),
                budget=budget,
                values={key: table_of(runs, key) for key in keys},
                is_difference=False,
            )
            for (arm, budget), runs in cells.items()
        ]
    return [
        FigureRow(
            title=title(f"{study.arm(one.first).title}\nminus {study.arm(one.second).title}", one.budget),
            budget=one.budget,
            values={key: paired(cells[one.first, one.budget], cells[one.second, one.budget], key) for key in keys},
            is_difference=True,
        )
        for budget in study.budgets
        for one in contrasts
        if one.budget == budget
    ]


def save_intervals(study: Study, rows: Sequence[FigureRow], path: Path) -> None:
    """Draw each row's mean and interval over prompts for the study's first scores, a panel each."""
    keys = study.scores[:MOST_PANELS]
    figure = new_figure(3.0 * len(keys) + 2.4, 0.36 * len(rows) + 0.9)
    panels = figure.subplots(1, len(keys), sharey=True, squeeze=False)[0]
    for panel, key in zip(panels, keys, strict=True):
        points = [(value, height) for height, row in enumerate(rows) for value in row.values[key].values()]
        if points:
            panel.scatter(*zip(*points, strict=True), s=6, color="0.7")
        for budget in study.budgets:
            means = [
                (height, *_mean_and_ends(row.values[key]))
                for height, row in enumerate(rows)
                if row.budget == budget and row.values[key]
            ]
            if means:
                heights, middles, below, above = zip(*means, strict=True)
                colour = f"C{study.budgets.index(budget)}"
                panel.errorbar(middles, heights, xerr=(below, above), fmt="o", color=colour, markersize=5, capsize=2)
        better = "more" if SCORES[key].better > 0 else "less"
        panel.set(ylim=(len(rows) - 0.5, -0.5))
        panel.set_title(f"{SCORES[key].title} ({better} is better)", fontsize=9)
        panel.tick_params(labelsize=8)
        panel.locator_params(axis="x", nbins=5)
        panel.grid(alpha=0.3, axis="x")
        if rows[0].is_difference:
            panel.axvline(0.0, color="0.4", linewidth=0.8)
    panels[0].set_yticks(range(len(rows)), [row.title for row in rows], fontsize=7)
    save_figure(figure, path, overwrite=True)


def _mean_and_ends(values: Mapping[tuple[str, int], float]) -> tuple[float, float, float]:
    """Return the mean over prompts, and how far its interval reaches down and up: 0 for a single prompt."""
    found = bootstrap(by_prompt(values))
    if found.single:
        return found.mean, 0.0, 0.0
    return found.mean, max(found.mean - found.low, 0.0), max(found.high - found.mean, 0.0)
