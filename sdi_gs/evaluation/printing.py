"""Scores on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sdi_gs.console import printable
from sdi_gs.evaluation.aggregates import aggregates
from sdi_gs.evaluation.many import Scored


def print_scored(scored: Sequence[Scored], *, alone: bool) -> None:
    """Print the table of a single scene, or the means of several and what failed."""
    if alone:
        scored[0].evaluation.print()
        return
    prompts, failed = {one.evaluation.prompt for one in scored}, [one for one in scored if one.failure is not None]
    title = f"{len(scored)} scenes, {len(prompts)} prompts, {len(failed)} failed (scored as blank pictures)"
    table = Table(title=title, title_justify="left")
    for column in ("", "mean", "over prompts ±", "over seeds ±", "mean of the finished", "scenes"):
        table.add_column(column, justify="left" if not column else "right")
    for key, value in aggregates(scored).items():
        numbers = (value.mean, value.std_prompts, value.std_seeds, value.mean_finished)
        table.add_row(key, *(_number(number) for number in numbers), str(value.num_scenes))
    console = Console(highlight=False)
    console.print(table, markup=False)
    for one in failed:
        console.print(Text(printable(f"failed: {one.entry.path}: {one.failure}")), soft_wrap=True)
    skipped = {name: why for one in scored for name, why in (one.evaluation.skipped or {}).items()}
    for name, why in skipped.items():
        console.print(Text(printable(f"skipped: {name}: {why}")), soft_wrap=True)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
