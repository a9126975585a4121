"""The defaults on twelve prompts, scored against toybox's truth and held against bars; writes tables and sheets.

    python benchmarks/gallery.py --results gallery-results --docs docs/reports       # an hour of CPU; resumes
    python benchmarks/gallery.py --results gallery-results --rows ideal --shard 1/2  # beside 2/2
    python benchmarks/gallery.py --results /tmp/g --rows ngp --prompts "a yellow car" --set steps=100

Each result is kept in ``<results>/<row>/<prompt>-<seed>.json`` with all its settings. With ``--docs`` the tables go
into ``gallery.md`` and the sheets beside it. The last line printed is one JSON object.
"""

from __future__ import annotations

import os

# Two OpenMP runtimes whose idle threads spin cost more than the work; read when they are loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import yaml
from scored_runs import insert_table, of_shard, parse_shard, sheet, train_and_score

from sdi_gs.configs.presets import preset
from sdi_gs.errors import UserError
from sdi_gs.evaluation.metrics.ceiling import score_ceiling
from sdi_gs.files import write_atomically
from sdi_gs.runs.folder import slug
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tree import config_from_dict, config_to_dict, differing_keys
from sdi_gs.study.spec import TWELVE as PROMPTS

MARKS = ("<!-- tables: benchmarks/gallery.py -->", "<!-- end of tables -->")


@dataclass(frozen=True, kw_only=True)
class Bar:
    """What a row's figure must be."""

    figure: str
    """A score's mean over the row's runs, or with "lowest " before it its minimum."""
    limit: float
    at_most: bool = False

    def passes(self, value: float) -> bool:
        """Return whether a figure is good enough."""
        return value <= self.limit if self.at_most else value >= self.limit

    @property
    def words(self) -> str:
        """Return the bar as in tables."""
        return f"{self.figure} {'≤' if self.at_most else '≥'} {self.limit:g}"


@dataclass(frozen=True, kw_only=True)
class GalleryRow:
    """Runs of one default."""

    title: str
    preset: str
    changes: Mapping[str, object]
    seeds: tuple[int, ...]
    bars: tuple[Bar, ...]
    fit: bool = False
    """Whether true views are fitted instead of a prior's targets, with the preset's steps."""


ROWS = {
    "ideal": GalleryRow(
        title="toybox-ideal, the default",
        preset="toybox-ideal",
        changes={},
        seeds=(0, 1),
        bars=(
            Bar(figure="psnr_free", limit=27.0),
            Bar(figure="iou_free", limit=0.94),
            Bar(figure="lowest iou_free", limit=0.85),
            Bar(figure="detail", limit=0.6),
            Bar(figure="loop_cpu_seconds", limit=25.0, at_most=True),
        ),
    ),
    "network": GalleryRow(
        title="--prior toybox, its default",
        preset="toybox",
        changes={},
        seeds=(0, 1),
        bars=(
            Bar(figure="psnr_free", limit=24.5),
            Bar(figure="iou_free", limit=0.92),
            Bar(figure="lowest iou_free", limit=0.80),
            Bar(figure="detail", limit=0.5),
            Bar(figure="judge_class", limit=0.99),
            Bar(figure="judge_colour", limit=1.0),
            Bar(figure="judge_view", limit=0.95),
            Bar(figure="loop_cpu_seconds", limit=40.0, at_most=True),
        ),
    ),
    "ngp": GalleryRow(
        title="--representation ngp, its default",
        preset="toybox-ideal",
        changes={"representation": "ngp"},
        seeds=(0,),
        bars=(
            Bar(figure="psnr_free", limit=25.0),
            Bar(figure="iou_free", limit=0.92),
            Bar(figure="lowest iou_free", limit=0.82),
            Bar(figure="loop_cpu_seconds", limit=60.0, at_most=True),
        ),
    ),
    "fit": GalleryRow(
        title="fit to true views, the default's steps",
        preset="toybox-ideal",
        changes={},
        seeds=(0,),
        bars=(Bar(figure="psnr", limit=34.0), Bar(figure="detail", limit=0.7)),
        fit=True,
    ),
}

COLUMNS = {
    "psnr_free": ("PSNR", ".1f"),
    "iou_free": ("IoU", ".3f"),
    "detail": ("detail", ".2f"),
    "detail_inside": ("detail inside", ".2f"),
    "yaw_deg": ("yaw", ".0f"),
    "psnr_best": ("PSNR, fixed yaw", ".1f"),
    "iou_best": ("IoU, fixed yaw", ".3f"),
    "sharpness_ratio": ("sharpness", ".2f"),
    "saturation_error": ("saturation", ".3f"),
    "fog": ("fog", ".4f"),
    "view_accuracy": ("view", ".2f"),
    "judge_class": ("judge: class", ".2f"),
    "judge_colour": ("judge: colour", ".2f"),
    "judge_view": ("judge: view", ".2f"),
    "predictor_calls": ("calls", ".0f"),
    "loop_cpu_seconds": ("CPU s", ".1f"),
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a row."""

    row: str
    config: RunConfig
    result: Path

    @property
    def picture(self) -> Path:
        """Return the path of four views of its result."""
        return self.result.with_suffix(".png")


def plan_runs(names: Sequence[str], results: Path, prompts: Sequence[str], changes: Mapping[str, object]) -> list[Run]:
    """Return the rows' runs, in the order in which they are made."""
    runs = []
    for name in names:
        row = ROWS[name]
        base = preset(row.preset, {**row.changes, **changes})
        for seed in row.seeds:
            for prompt in prompts:
                config = replace(base, prompt=prompt, seed=seed)
                runs.append(Run(row=name, config=config, result=results / name / f"{slug(prompt)}-{seed}.json"))
    return runs


def kept(run: Run) -> dict[str, Any] | None:
    """Return the scores of a finished run; raises SystemExit if it was made with other settings."""
    if not run.result.exists():
        return None
    scores = json.loads(run.result.read_text())
    made_with = config_from_dict(scores.pop("config"))
    keys = differing_keys(made_with, run.config)
    if made_with.guidance.noise == run.config.guidance.noise == "random":
        # Nothing is inverted.
        keys = [key for key in keys if not key.startswith("guidance.inversion_")]
    if keys:
        raise SystemExit(f"{run.result} was made with another {keys[0]}: give another --results, or delete it")
    return scores


def make(run: Run) -> dict[str, Any]:
    """Train and score one run, or fit one object, and keep the scores."""
    run.result.parent.mkdir(parents=True, exist_ok=True)
    if ROWS[run.row].fit:
        started = time.process_time()
        scores: dict[str, Any] = asdict(score_ceiling(run.config, run.config.prompt))
        seconds = time.process_time() - started
        scores |= {"prompt": run.config.prompt, "seed": run.config.seed, "loop_cpu_seconds": seconds}
    else:
        scores = train_and_score(run.config, run.picture)
    write_atomically(run.result, json.dumps(scores | {"config": config_to_dict(run.config)}, indent=1).encode())
    return scores


def figure(rows: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """Return a score's mean, or its minimum for a name that begins with "lowest"; None if no run has it."""
    key = name.removeprefix("lowest ")
    values = [float(row[key]) for row in rows if row.get(key) is not None]
    if not values:
        return None
    return min(values) if name.startswith("lowest ") else mean(values)


def verdicts(name: str, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return every bar of a row with the figure that was reached and whether it passes."""
    told = []
    for bar in ROWS[name].bars:
        value = figure(rows, bar.figure)
        told.append({"row": name, "bar": bar.words, "value": value, "passes": value is not None and bar.passes(value)})
    return told


def bar_table(by_row: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Format a line per bar."""
    lines = ["| row | runs | must | is | |", "|---|---|---|---|---|"]
    for name, rows in by_row.items():
        for told in verdicts(name, rows):
            shown = "–" if told["value"] is None else f"{told['value']:.3g}"
            answer = "pass" if told["passes"] else "**fail**"
            lines.append(f"| {ROWS[name].title} | {len(rows)} | {told['bar']} | {shown} | {answer} |")
    return "\n".join(lines)


def run_table(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Format a line per run."""
    columns = {key: spec for key, spec in COLUMNS.items() if any(row.get(key) is not None for row in rows)}
    if ROWS[name].fit:
        columns = {"psnr": ("PSNR", ".1f"), "iou": ("IoU", ".3f"), "detail": ("detail", ".2f")}
    lines = ["| prompt | seed | " + " | ".join(title for title, _ in columns.values()) + " |"]
    lines.append("|---" * (len(columns) + 2) + "|")
    for row in rows:
        cells = ["–" if row.get(key) is None else format(row[key], form) for key, (_, form) in columns.items()]
        lines.append(f"| {row['prompt']} | {row['seed']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_page(docs: Path, by_row: Mapping[str, Sequence[Mapping[str, Any]]], runs: Sequence[Run]) -> None:
    """Write the tables into the page, and a sheet for every row and seed."""
    parts = [bar_table(by_row), ""]
    for name, rows in by_row.items():
        parts += [f"### {ROWS[name].title}", "", run_table(name, rows), ""]
        for seed in ROWS[name].seeds:
            pictures = [run.picture for run in runs if run.row == name and run.config.seed == seed]
            made = [picture for picture in pictures if picture.exists()]
            if made:
                sheet(made, docs / f"gallery-{name}-{seed}.png")
    insert_table(docs / "gallery.md", "\n".join(parts), MARKS)


def parse_arguments() -> argparse.Namespace:
    """Parse the options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--results", type=Path, required=True, help="where results are kept")
    parser.add_argument("--docs", type=Path, help="folder of gallery.md, whose tables and sheets are written")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--prompts", nargs="+", default=list(PROMPTS))
    parser.add_argument("--seeds", type=int, nargs="+", help="only these of a row's seeds")
    parser.add_argument("--shard", type=parse_shard, default=(1, 1), metavar="K/N", help="every K-th of N runs")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run later than this")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change all presets")
    return parser.parse_args()


def main() -> None:
    """Make missing results, print and write."""
    options = parse_arguments()
    changes = {key: yaml.safe_load(value) for key, _, value in (change.partition("=") for change in options.set)}
    runs = plan_runs(options.rows, options.results, options.prompts, changes)
    runs = [run for run in runs if options.seeds is None or run.config.seed in options.seeds]
    until = time.monotonic() + 60.0 * options.minutes
    for run in of_shard(runs, options.shard):
        if kept(run) is None and time.monotonic() < until:
            row = make(run)
            figures = [
                f"{key} {row[key]:.3g}" for key in ("psnr_free", "iou_free", "psnr", "iou", "detail") if key in row
            ]
            print(f"{run.row:8} {run.result.stem:32} {' '.join(figures)} {row['loop_cpu_seconds']:.1f} s", flush=True)
    by_row: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        scores = kept(run)
        if scores is not None:
            by_row.setdefault(run.row, []).append(scores)
    print(bar_table(by_row))
    if options.docs is not None:
        write_page(options.docs, by_row, runs)
    print(json.dumps({name: verdicts(name, rows) for name, rows in by_row.items()}))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"gallery: {error}")
