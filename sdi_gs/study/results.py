"""The finished runs of a study: their scores from the shared folder, and what a study's own file keeps of them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sdi_gs.batch.ranking import metrics_for
from sdi_gs.batch.rows import Row
from sdi_gs.batch.state import BatchState
from sdi_gs.errors import UserError
from sdi_gs.files import disk_errors, require_file, write_atomically
from sdi_gs.priors.catalog import is_instrument
from sdi_gs.runs.finish import read_summary
from sdi_gs.runs.folder import RunFolder
from sdi_gs.settings.compute import ComputeConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tree import config_from_dict, differing_keys
from sdi_gs.study.differences import Result
from sdi_gs.study.plan import Plan, PlannedRun, SecondsOf
from sdi_gs.study.scores import SCORES, metrics_of
from sdi_gs.study.spec import BUDGETS, Study

SCORES_FOLDER = "scores"
"""Folder in the shared one with the scores that were computed after a run's end, a file per row."""

Scorer = Callable[[Path, Sequence[str]], Mapping[str, Any]]
"""Returns the values of some metrics of a finished run, by key: all that a study knows of evaluation."""


def scorer_of_runs(device: str = "cpu") -> Scorer:
    """Return a scorer that keeps networks and true objects from one run to the next."""
    import torch

    from sdi_gs.evaluation.evaluate import evaluate, truth_renders_for
    from sdi_gs.evaluation.metrics.table import metric_named
    from sdi_gs.evaluation.networks.kept import Networks
    from sdi_gs.runs.loading import load

    renders, networks = truth_renders_for(), Networks(device=device)

    def score(folder: Path, metrics: Sequence[str]) -> dict[str, Any]:
        scene, chosen = load(folder, device=torch.device(device)), [metric_named(name) for name in metrics]
        return evaluate(scene, metrics=chosen, networks=networks, truth_renders=renders).scores

    return score


def require_scores(study: Study, configs: Iterable[RunConfig]) -> None:
    """Raise UserError for a score whose network is not here, or that needs a truth where no run has one."""
    from sdi_gs.evaluation.metrics.table import metric_named
    from sdi_gs.evaluation.networks.kept import Networks

    networks, priors = Networks(), {config.prior for config in configs}
    for key in (*study.means, *study.scores):
        score = SCORES[key]
        reason = None if score.network is None else networks.why_not(score.network)
        if metric_named(score.metric).needs_truth and not any(map(is_instrument, priors)):
            others = ", ".join(name for name, other in SCORES.items() if not metric_named(other.metric).needs_truth)
            reason = f"toybox alone has a truth, not {', '.join(sorted(priors))}; without one there are {others}"
        if reason is not None:
            raise UserError(f"study {study.name}: metric {key}: {reason}")


def wanted_metrics(study: Study, row: Row, config: RunConfig) -> tuple[str, ...]:
    """Return the metrics of a study that can score a run."""
    wanted = metrics_of((*study.means, *study.scores))
    return metrics_for(wanted, prompt=row.prompt, prior=config.prior)


def workers_metrics(study: Study, row: Row, config: RunConfig) -> tuple[str, ...]:
    """Return those that its worker computes; networks would have to share its card with the prior."""
    learned = {score.metric for score in SCORES.values() if score.network is not None}
    return tuple(name for name in wanted_metrics(study, row, config) if name not in learned)


def is_finished(state: BatchState | None, run: PlannedRun) -> bool:
    """Return whether the shared folder holds a run's result."""
    return state is not None and run.row.key in state and state[run.row.key].status == "finished"


def is_made(state: BatchState, run: PlannedRun, runs: Path) -> bool:
    """Return whether a run's result is there: whoever removes its summary wants it made again."""
    return is_finished(state, run) and RunFolder(run.row.folder(runs)).summary.is_file()


def complete_results(
    plan: Plan,
    state: BatchState,
    runs: Path,
    *,
    score: Scorer | None = None,
    seconds_of: SecondsOf | None = None,
) -> list[Result]:
    """Return the runs of the groups of which every run is finished.

    Scores that no worker computed are computed now and kept. ``seconds_of`` predicts the CPU seconds of a run of an
    instrument. Raises UserError for a run that was made with other settings than the study's.
    """
    score = score or scorer_of_runs()
    found: dict[tuple[Any, ...], Result] = {}
    values: dict[str, dict[str, Any]] = {}
    for group in plan.groups:
        if not all(is_finished(state, run) for run in group):
            continue
        for run in group:
            key = run.row.key
            if key not in values:
                values[key] = _values_of(plan.study, run, state, runs, score)
                if seconds_of is not None and is_instrument(run.config.prior):
                    values[key]["predicted_cpu_seconds"] = seconds_of(run.config)
            result = Result(
                setting=run.setting,
                arm=run.arm,
                budget=run.budget,
                prompt=run.plain_prompt,
                seed=run.config.seed,
                scores=values[key],
            )
            found[run.setting, run.arm, run.budget, run.plain_prompt, run.config.seed] = result
    return list(found.values())


def _values_of(study: Study, run: PlannedRun, state: BatchState, runs: Path, score: Scorer) -> dict[str, Any]:
    """Return a run's costs and scores."""
    folder = run.row.folder(runs)
    summary = read_summary(RunFolder(folder)) or {}
    _require_same(folder, summary, run.config)
    known = {**state[run.row.key].scores, **_kept(runs, run.row.key)}
    missing = [name for name in wanted_metrics(study, run.row, run.config) if not _has(known, name)]
    if missing:
        fresh = {key: value for key, value in score(folder, missing).items() if _is_plain(value)}
        known |= fresh
        _keep(runs, run.row.key, {**_kept(runs, run.row.key), **fresh})
    return {
        **known,
        "steps": run.config.steps,
        "steps_per_target": run.config.replay.steps_per_target,
        "predictor_calls": summary.get("predictor_calls"),
        "seconds": summary.get("train_seconds"),
    }


def _require_same(folder: Path, summary: Mapping[str, Any], wanted: RunConfig) -> None:
    """Raise UserError for a run of other settings; those of the machine and of its files may differ."""
    made = config_from_dict(dict(summary.get("config") or {}))
    common = {"compute": ComputeConfig(), "outputs": wanted.outputs, "prior_sums": ()}
    keys = differing_keys(replace(made, **common), replace(wanted, **common))
    if keys:
        raise UserError(f"{folder} was made with another {keys[0]}: give another --runs-dir, or remove that folder")


def _has(known: Mapping[str, Any], metric: str) -> bool:
    return any((score.key or key) in known for key, score in SCORES.items() if score.metric == metric)


def _is_plain(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and math.isfinite(value))


def _kept(runs: Path, key: str) -> dict[str, Any]:
    path = runs / SCORES_FOLDER / f"{key}.json"
    if not path.is_file():
        return {}
    with disk_errors(path, "read"):
        return json.loads(path.read_text())


def _keep(runs: Path, key: str, values: Mapping[str, Any]) -> None:
    path = runs / SCORES_FOLDER / f"{key}.json"
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(values, indent=1).encode(), overwrite=True)


def results_as_json(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return plain values; ``read_results`` reads them."""
    return [asdict(result) for result in results]


def read_results(path: Path, study: Study) -> list[Result]:
    """Return the results in a study.json; UserError for another file, and for results of no arm of the study."""
    require_file(path)
    with disk_errors(path, "read"):
        text = path.read_bytes()
    try:
        results = [Result(**row) for row in json.loads(text)["results"]]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"{path} holds no results of a study: give a study.json") from error
    arms, settings = {arm.name for arm in study.arms}, {setting.name for setting in study.settings}
    for result in results:
        if result.arm not in arms or result.setting not in settings or result.budget not in BUDGETS:
            raise UserError(
                f"{path} has a result of {result.setting}, {result.arm}, {result.budget}, which is no part of study "
                f"{study.name}: give the file of this study"
            )
    return results
