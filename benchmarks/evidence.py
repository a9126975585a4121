"""SDI against SDS and others, with target replay and without, at equal calls and CPU time (docs/reports/evidence.md).

    python benchmarks/evidence.py --results evidence-results --plan core --dry-run      # order and predicted cost
    python benchmarks/evidence.py --results evidence-results --plan core --shard 1/2    # resumes; beside 2/2
    python benchmarks/evidence.py --results evidence-results --plan core --minutes 0 --docs docs/reports   # tables

Each result is kept in ``<results>/<setting>/<arm>/<prompt>-<seed>-<steps>x<steps per target>.json`` with all its
settings; budgets with the same steps share it. Runs of a prompt and seed count only when those of all its block's arms
are there. The last line printed is one JSON object.
"""

from __future__ import annotations

import os

# Two OpenMP runtimes whose idle threads spin cost more than the work; read when they are loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import yaml
from evidence_cost import Cost, count_calls, measure_cost
from evidence_plan import PLANS, SETTINGS, Group, PlanName, Run, plan_groups
from evidence_tables import Row, page_tables, summary
from scored_runs import CPU, PROMPTS, Shared, insert_table, of_shard, parse_shard, shared_by, sheet, train_and_score

from sdi_gs.errors import UserError
from sdi_gs.files import write_atomically
from sdi_gs.priors.catalog import load_prior
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tree import config_from_dict, config_to_dict, differing_keys

MARKS = ("<!-- tables: benchmarks/evidence.py -->", "<!-- end of tables -->")
SHEETS = ("sds-annealed", "sdi")


def kept(run: Run) -> dict[str, Any] | None:
    """Return the result of a finished run; raises SystemExit if it was made with other settings."""
    if not run.result.exists():
        return None
    result = json.loads(run.result.read_text())
    keys = differing_keys(config_from_dict(result.pop("config")), run.config)
    if keys:
        raise SystemExit(f"{run.result} was made with another {keys[0]}: give another --results, or delete it")
    return result | {"steps_per_target": run.config.replay.steps_per_target}


def make(run: Run, shared: Shared) -> None:
    """Train and score one run and keep its result."""
    run.result.parent.mkdir(parents=True, exist_ok=True)
    scores = train_and_score(run.config, run.picture, shared=shared)
    write_atomically(run.result, json.dumps(scores | {"config": config_to_dict(run.config)}, indent=1).encode())


def make_missing(groups: Sequence[Group], *, until: float = float("inf")) -> Iterator[Run]:
    """Make the missing results group by group; none is begun after ``until``, in seconds of ``time.monotonic``."""
    for group in groups:
        shared = None
        for run in group:
            if time.monotonic() >= until:
                return
            if kept(run) is None:
                shared = shared or shared_by(run.config)
                make(run, shared)
                yield run


def finished_rows(groups: Sequence[Group]) -> list[Row]:
    """Return the runs of complete groups, each once."""
    rows: dict[tuple[Any, ...], Row] = {}
    for group in groups:
        results = [kept(run) for run in group]
        for run, scores in zip(group, results, strict=True):
            if scores is not None and None not in results:
                row = Row(
                    setting=run.setting,
                    arm=run.arm,
                    budget=run.budget,
                    prompt=run.plain_prompt,
                    seed=run.config.seed,
                    scores=scores,
                )
                rows[row.setting, row.arm, row.budget, row.prompt, row.seed] = row
    return list(rows.values())


def cost_of(setting: str, base: RunConfig, folder: Path, *, keep: bool) -> Cost:
    """Return the costs under a setting, measured once for all runs in a folder."""
    path = folder / setting / "cost.json"
    if path.exists():
        known = json.loads(path.read_text())
        keys = differing_keys(config_from_dict(known.pop("config")), base)
        if keys:
            raise SystemExit(f"{path} was measured with another {keys[0]}: give another --results, or delete it")
        return Cost(**known)
    # A styled object's calls take ten times as long as a plain one's.
    cost = measure_cost(replace(base, prompt=SETTINGS[setting].prompt(PROMPTS[0])))
    if keep:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(asdict(cost) | {"config": config_to_dict(base)}, indent=1).encode())
    return cost


def print_plan(groups: Sequence[Group], costs: dict[str, Cost]) -> dict[str, Any]:
    """Print each arm's steps and costs, and the work that is left."""
    plan: dict[tuple[Any, ...], dict[str, Any]] = {}
    seconds: dict[Path, float] = {}
    schedules = {name: load_prior(SETTINGS[name].base({}), device=CPU).schedule for name in costs}
    for run in (run for group in groups for run in group):
        key = (run.setting, run.arm, run.budget)
        if key not in plan:
            calls = count_calls(run.config, schedules[run.setting])
            spent = costs[run.setting].seconds(run.config, schedules[run.setting])
            steps, inner = run.config.steps, run.config.replay.steps_per_target
            plan[key] = {"setting": run.setting, "arm": run.arm.name, "budget": run.budget, "steps": steps}
            plan[key] |= {"steps_per_target": inner, "calls": calls.total, "seconds": spent}
            print(
                f"{run.setting:16} {run.arm.name:22} {run.budget:5} {steps:5} steps x {inner:2} "
                f"{calls.total:5} calls ({calls.both} with both branches) {spent:6.1f} CPU s a run"
            )
        if kept(run) is None:
            seconds[run.result] = plan[key]["seconds"]
    hours = sum(seconds.values()) / 3600
    print(f"{len(seconds)} runs are missing: about {hours:.2f} CPU h, without scoring")
    costs_told = {name: asdict(cost) for name, cost in costs.items()}
    return {"plan": list(plan.values()), "missing_runs": len(seconds), "missing_cpu_hours": hours, "costs": costs_told}


def parse_arguments() -> argparse.Namespace:
    """Parse and check the options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--results", type=Path, required=True, help="where results are kept")
    parser.add_argument("--plan", choices=get_args(PlanName), default="core")
    parser.add_argument("--blocks", type=int, nargs="+", help="only these blocks of the plan, from 1")
    parser.add_argument("--groups", type=int, help="only the first groups of prompt and seed")
    parser.add_argument("--shard", type=parse_shard, default=(1, 1), metavar="K/N", help="every K-th of N groups")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run later than this")
    parser.add_argument("--docs", type=Path, help="folder of evidence.md, whose tables and pictures are written")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change all presets")
    parser.add_argument("--dry-run", action="store_true", help="say what would be run; write nothing")
    options = parser.parse_args()
    if options.blocks and not set(options.blocks) <= set(range(1, len(PLANS[options.plan]) + 1)):
        parser.error(f"plan {options.plan} has blocks 1 to {len(PLANS[options.plan])}")
    return options


def read_changes(changes: Sequence[str]) -> dict[str, object]:
    """Return the changes of ``--set``; values are written as in YAML."""
    pairs = [change.partition("=") for change in changes]
    if any(not value for _, _, value in pairs):
        raise SystemExit(f"--set takes KEY=VALUE, got {' '.join(changes)}")
    return {key: yaml.safe_load(value) for key, _, value in pairs}


def write_page(docs: Path, groups: Sequence[Group], rows: Sequence[Row]) -> None:
    """Write the tables into the page, and a sheet for every setting and both methods at equal time."""
    insert_table(docs / "evidence.md", page_tables(rows), MARKS)
    for setting in SETTINGS:
        for noise in SHEETS:
            pictures = {
                run.picture: None
                for run in (run for group in groups for run in group)
                if (run.setting, run.arm.name, run.budget, run.config.seed) == (setting, noise, "time", 0)
            }
            made = [picture for picture in pictures if picture.exists()]
            if made:
                sheet(made, docs / f"evidence-{setting}-{noise}.png")


def main() -> None:
    """Plan, make missing results, print and write."""
    options = parse_arguments()
    costs: dict[str, Cost] = {}

    def known_cost(setting: str, base: RunConfig) -> Cost:
        costs[setting] = cost_of(setting, base, options.results, keep=not options.dry_run)
        return costs[setting]

    numbers = options.blocks or range(1, len(PLANS[options.plan]) + 1)
    blocks = [PLANS[options.plan][number - 1] for number in numbers]
    groups = plan_groups(blocks, options.results, known_cost, read_changes(options.set))[: options.groups]
    told = print_plan(groups, costs)
    if options.dry_run:
        print(json.dumps(told))
        return
    until = time.monotonic() + 60.0 * options.minutes
    for run in make_missing(of_shard(groups, options.shard), until=until):
        row = kept(run) or {}
        print(
            f"{run.setting:16} {run.arm.name:22} {run.result.stem:36} PSNR {row['psnr_free']:5.2f} "
            f"IoU {row['iou_free']:.3f} detail {row['detail']:.2f} {row['loop_cpu_seconds']:6.1f} s",
            flush=True,
        )
    rows = finished_rows(groups)
    complete = sum(all(kept(run) is not None for run in group) for group in groups)
    print(f"{complete} of {len(groups)} groups of prompt and seed are complete")
    if options.docs is not None:
        write_page(options.docs, groups, rows)
    print(json.dumps({"complete_groups": complete, "groups": len(groups), **summary(rows)}))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"evidence: {error}")
