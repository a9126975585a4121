"""SDS, annealed SDS and SDI at four inversion scales, at equal calls, CPU time or steps, with intervals.

    python benchmarks/evidence.py --preset toybox --results evidence-results --dry-run     # predicts costs
    python benchmarks/evidence.py --preset toybox --results evidence-results --docs docs/reports   # resumes
    python benchmarks/evidence.py --preset toybox --results trial --arms sds --budgets calls --prompts 4 --seeds 1 \
        --set guidance.guidance_scale=3 --set steps=100                                    # a trial of settings

Each result is kept in ``<results>/<preset>/<arm>/<prompt>-<seed>-<steps>.json``; budgets with the same number of steps
share it. With ``--docs`` the tables go into ``evidence.md`` and sheets beside it. The last line printed is
one JSON object.
"""

from __future__ import annotations

import os

# Two OpenMP runtimes whose idle threads spin cost more than the work; read when they are loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import json
import multiprocessing
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from evidence_arms import ARMS, BUDGETS, Budget, Calls, Cost, budgeted, count_calls, distinct_arms, measure_cost
from evidence_tables import page_tables, summary
from scored_runs import CPU, PROMPTS, insert_table, sheet, train_and_score

from sdi_gs.configs.presets import preset_named
from sdi_gs.errors import UserError
from sdi_gs.files import write_atomically
from sdi_gs.priors.catalog import load_prior
from sdi_gs.runs.folder import slug
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tree import config_from_dict, config_to_dict, differing_keys, with_values

END_MARK = "<!-- end of tables -->"
SHEETS = ("sds-annealed", "sdi")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of the comparison."""

    budget: Budget
    arm: str
    config: RunConfig
    stem: Path
    """Return the path of result and picture, without suffix."""

    @property
    def result(self) -> Path:
        """Return the path of its scores."""
        return self.stem.with_name(f"{self.stem.name}.json")

    @property
    def picture(self) -> Path:
        """Return the path of four views of its result."""
        return self.stem.with_name(f"{self.stem.name}.png")


def plan_runs(
    base: RunConfig,
    folder: Path,
    *,
    arms: list[str],
    budgets: list[Budget],
    prompts: list[str],
    seeds: list[int],
    cost: Cost | None,
) -> list[Run]:
    """Return all runs, prompt by prompt, so that a stopped comparison has all arms of some prompts."""
    schedule = load_prior(base, device=CPU).schedule
    given: list[tuple[Budget, str, RunConfig]] = [
        (budget, arm, budgeted(base, arm, budget, schedule=schedule, cost=cost))
        for budget in budgets
        for arm in distinct_arms(base, arms)
    ]
    return [
        Run(
            budget=budget,
            arm=arm,
            config=replace(config, prompt=prompt, seed=seed),
            stem=folder / arm / f"{slug(prompt)}-{seed}-{config.steps}",
        )
        for seed in seeds
        for prompt in prompts
        for budget, arm, config in given
    ]


def kept(run: Run) -> dict[str, Any] | None:
    """Return the result of a finished run; raises SystemExit if it was made with other settings."""
    if not run.result.exists():
        return None
    result = json.loads(run.result.read_text())
    keys = differing_keys(config_from_dict(result.pop("config")), run.config)
    if keys:
        raise SystemExit(f"{run.result} was made with another {keys[0]}: give another --results, or delete it")
    return result


def make(values: dict[str, Any], result: Path, picture: Path, threads: int) -> Path:
    """Train and score one run and keep its result; the arguments are plain values for another process."""
    torch.set_num_threads(threads)
    result.parent.mkdir(parents=True, exist_ok=True)
    scores = train_and_score(config_from_dict(values), picture)
    write_atomically(result, json.dumps(scores | {"config": values}, indent=1).encode())
    return result


def make_all(runs: list[Run], jobs: int) -> Iterator[Path]:
    """Make the missing results, ``jobs`` at a time."""
    missing = {run.result: run for run in runs if kept(run) is None}
    threads = max(1, torch.get_num_threads() // jobs)
    work = [(config_to_dict(run.config), run.result, run.picture, threads) for run in missing.values()]
    if jobs == 1:
        yield from (make(*arguments) for arguments in work)
        return
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        for done in as_completed([pool.submit(make, *arguments) for arguments in work]):
            yield done.result()


def cost_of(base: RunConfig, folder: Path, *, keep: bool) -> Cost:
    """Return CPU seconds of a step and of a call, measured once per folder."""
    path = folder / "cost.json"
    values = config_to_dict(base)
    if path.exists():
        known = json.loads(path.read_text())
        keys = differing_keys(config_from_dict(known.pop("config")), base)
        if keys:
            raise SystemExit(f"{path} was measured with another {keys[0]}: give another --results, or delete it")
        return Cost(**known)
    cost = measure_cost(base)
    if keep:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(asdict(cost) | {"config": values}, indent=1).encode())
    return cost


def print_plan(base: RunConfig, runs: list[Run], cost: Cost) -> dict[str, Any]:
    """Print each arm's steps and costs, and the remaining work."""
    schedule, plan, seen = load_prior(base, device=CPU).schedule, [], set()
    for run in runs:
        if (run.budget, run.arm) not in seen:
            seen.add((run.budget, run.arm))
            calls: Calls = count_calls(run.config, schedule)
            seconds = cost.seconds(run.config, schedule)
            row = {"budget": run.budget, "arm": run.arm, "steps": run.config.steps, "calls": calls.total}
            plan.append(row | {"seconds": seconds})
            print(
                f"{run.budget:5} {run.arm:13} {run.config.steps:6} steps {calls.total:6} calls "
                f"({calls.both} with both branches) {seconds:7.1f} CPU s a run"
            )
    missing = {run.result: run for run in runs if kept(run) is None}
    left = sum(cost.seconds(run.config, schedule) for run in missing.values())
    print(f"{len(missing)} of {len({run.result for run in runs})} runs are missing: about {left / 3600:.1f} CPU h")
    return {"plan": plan, "missing_runs": len(missing), "missing_cpu_hours": left / 3600, "cost": asdict(cost)}


def parse_arguments() -> argparse.Namespace:
    """Parse and check the options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--preset", choices=("toybox", "toybox-ideal"), default="toybox")
    parser.add_argument("--results", type=Path, required=True, help="where results are kept")
    parser.add_argument("--docs", type=Path, help="folder of evidence.md, whose tables and pictures are written")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--budgets", nargs="+", choices=BUDGETS, default=list(BUDGETS))
    parser.add_argument("--prompts", type=int, default=len(PROMPTS), help="how many of the prompts, from the first on")
    parser.add_argument("--seeds", type=int, default=2, help="how many seeds")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time; they share the threads")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change the preset for all arms"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be run; write nothing")
    options = parser.parse_args()
    if not 1 <= options.prompts <= len(PROMPTS) or min(options.seeds, options.jobs) < 1:
        parser.error(f"--prompts must be 1 to {len(PROMPTS)}, --seeds and --jobs at least 1")
    return options


def base_config(preset: str, changes: list[str]) -> RunConfig:
    """Return the preset with the changes of ``--set``; values are written as in YAML."""
    pairs = [change.partition("=") for change in changes]
    if any(not value for _, _, value in pairs):
        raise SystemExit(f"--set takes KEY=VALUE, got {' '.join(changes)}")
    return with_values(preset_named(preset).config, {key: yaml.safe_load(value) for key, _, value in pairs})


def main() -> None:
    """Plan, make missing results, print and write."""
    options = parse_arguments()
    base, folder = base_config(options.preset, options.set), options.results / options.preset
    cost = cost_of(base, folder, keep=not options.dry_run)
    runs = plan_runs(
        base,
        folder,
        arms=options.arms,
        budgets=options.budgets,
        prompts=list(PROMPTS[: options.prompts]),
        seeds=[options.first_seed + number for number in range(options.seeds)],
        cost=cost,
    )
    told = print_plan(base, runs, cost)
    if options.dry_run:
        print(json.dumps(told))
        return
    for done in make_all(runs, options.jobs):
        row = json.loads(done.read_text())
        print(
            f"{done.parent.name:13} {done.stem:34} PSNR {row['psnr_best']:5.2f} IoU {row['iou_best']:.3f} "
            f"class {row['judge_class']:.2f} {row['loop_cpu_seconds']:6.1f} s",
            flush=True,
        )
    results = {budget: {arm: [] for arm in distinct_arms(base, options.arms)} for budget in options.budgets}
    for run in runs:
        results[run.budget][run.arm].append(kept(run))
    if options.docs is not None:
        mark = (
            f"<!-- tables: benchmarks/evidence.py --preset {options.preset} --budgets {' '.join(options.budgets)} -->"
        )
        insert_table(options.docs / "evidence.md", page_tables(results, seeds=options.seeds), (mark, END_MARK))
        for arm in SHEETS:
            pictures = [run.picture for run in runs if (run.budget, run.arm, run.config.seed) == ("calls", arm, 0)]
            if pictures:
                sheet(pictures, options.docs / f"evidence-{options.preset}-{arm}.png")
    print(json.dumps({"preset": options.preset, "cost": asdict(cost), **summary(results, seeds=options.seeds)}))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"evidence: {error}")
