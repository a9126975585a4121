"""``sdi-gs study``: arms, prompts, seeds and budgets, from their runs to tables with intervals and figures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
import yaml

from sdi_gs import __version__
from sdi_gs.batch.display import totals_of
from sdi_gs.batch.engine import Job
from sdi_gs.batch.journal import JOURNAL, BatchHeader
from sdi_gs.batch.opening import opened_batch, require_batch_folder
from sdi_gs.batch.page import PageWriter
from sdi_gs.batch.state import BatchState, RowState, replay
from sdi_gs.commands.batch_engine import EngineOptions, engine_of, make_rows, require_engine
from sdi_gs.commands.common import EXIT_INTERRUPTED, pick_device, print_paths
from sdi_gs.configs.presets import preset
from sdi_gs.console import say
from sdi_gs.errors import UserError
from sdi_gs.settings.bounds import SEED, Range, check_settings
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tree import config_to_dict
from sdi_gs.study.page import require_folder
from sdi_gs.study.reading import listed_prompts, read_study, study_file
from sdi_gs.study.spec import Study as Studied

if TYPE_CHECKING:
    from sdi_gs.study.plan import Plan
    from sdi_gs.study.prediction import Predictor

EXIT_INCOMPLETE = 1
"""Some runs could not be made."""
SHIPPED = Path(__file__).parent.parent / "configs" / "studies"
"""The studies that the package brings."""


@dataclass(frozen=True, kw_only=True)
class Study(EngineOptions):
    """Compare arms on prompts and seeds at equal budgets: tables, intervals, figures (docs/studies.md).

    The same command again skips what is finished and goes on with what is not.
    """

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME|FILE")]
    """A study of the package by its name, or a YAML file."""
    output_dir: Path | None = None
    """Where study.md, study.json and the pictures are written; outputs/study-NAME if not given."""
    runs_dir: Path | None = None
    """Folder of the runs, which studies share; study-runs beside the output folder if not given."""
    dry_run: bool = False
    """Print runs, calls and predicted hours; make and write nothing."""
    results: Path | None = None
    """A study.json of the same study, whose tables and figures are written again; nothing is made."""
    prompts: Annotated[int | None, Range(1, 100_000)] = None
    """Only the first so many prompts of each block."""
    prompt_list: Path | None = None
    """Prompts of this list instead of the study's, as sdi-gs batch takes it (docs/batch.md)."""
    key: str | None = None
    """Which list of a prompt library (.json) to take, where it holds several."""
    seeds: Annotated[tuple[int, ...], SEED] = ()
    """These seeds instead of the study's."""
    blocks: Annotated[tuple[int, ...], Range(1, 1000)] = ()
    """Only these blocks of the study, from 1."""
    set: tuple[str, ...] = ()
    """Changes of all settings, as steps=100; the arms' own win."""
    attempts: Annotated[int, Range(1, 100)] = 3
    """How many times a run is tried whose worker ends while it has it."""
    max_failures: Annotated[int | None, Range(1, 1_000_000)] = None
    """Failed runs after which the study saves what is running and ends; any number if not given."""
    retry_failed: bool = False
    """Try the runs again that failed before."""

    def __post_init__(self) -> None:
        check_settings(self)


def study(options: Study) -> int:
    """Make a study's missing runs and write its report; return 0, 1 if runs failed, or 130 for one that was stopped."""
    require_engine(options)
    studied = _chosen(read_study(study_file(options.source, SHIPPED)), options)
    out = options.output_dir or Path("outputs") / f"study-{studied.name}"
    require_folder(out)
    if options.results is not None:
        return _report_again(options, studied, out)
    from sdi_gs.study.plan import plan_study
    from sdi_gs.study.prediction import Predictor
    from sdi_gs.study.results import is_made, require_scores

    runs = options.runs_dir or out.parent / "study-runs"
    require_batch_folder(runs, "--runs-dir")
    predictor = Predictor(runs, say=say)
    plan = plan_study(
        studied,
        preset=preset,
        schedule_of=predictor.schedule,
        seconds_of=predictor.seconds,
        changes=_changes(options.set),
    )
    require_scores(studied, [run.config for run in plan.rows.values()])
    state = replay(runs) if (runs / JOURNAL).is_file() else None
    _print_plan(plan, predictor, state, runs)
    if options.dry_run:
        return 0
    if state is not None and all(is_made(state, run, runs) for run in plan.rows.values()):
        # Another study may be making runs in the same folder.
        was_stopped = False
        predictor.save()
    else:
        state, was_stopped = _make(options, plan, runs, predictor)
    _write(options, plan, predictor, state, runs, out)
    if was_stopped:
        say("stopped; the same command again goes on")
        return EXIT_INTERRUPTED
    return 0 if all(state[key].status == "finished" for key in plan.rows) else EXIT_INCOMPLETE


def _chosen(studied: Studied, options: Study) -> Studied:
    """Return the study with the blocks, prompts and seeds that were asked for."""
    numbers = options.blocks or tuple(range(1, len(studied.blocks) + 1))
    if max(numbers) > len(studied.blocks):
        raise UserError(f"--blocks: study {studied.name} has blocks 1 to {len(studied.blocks)}, got {max(numbers)}")
    if options.key is not None and options.prompt_list is None:
        raise UserError(f"--key {options.key} chooses a list of a prompt library: add --prompt-list FILE")
    listed = None if options.prompt_list is None else listed_prompts(options.prompt_list, options.key)
    blocks = [
        replace(block, prompts=(listed or block.prompts)[: options.prompts], seeds=options.seeds or block.seeds)
        for block in (studied.blocks[number - 1] for number in dict.fromkeys(numbers))
    ]
    return replace(studied, blocks=tuple(blocks))


def _changes(texts: tuple[str, ...]) -> dict[str, Any]:
    """Return the changes of ``--set``; values are written as in YAML."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise UserError(f"--set takes NAME=VALUE, as steps=100, got {text}")
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"--set {text}: the value is not YAML") from error
    return found


def _print_plan(plan: Plan, predictor: Predictor, state: BatchState | None, runs: Path) -> None:
    """Print each arm's steps, calls and seconds, and the work that is left."""
    from sdi_gs.priors.catalog import is_instrument
    from sdi_gs.study.cost import count_calls
    from sdi_gs.study.results import is_finished

    cells: dict[tuple[str, str, str], tuple[int, float | None]] = {}
    calls_left, seconds_left, missing = 0, 0.0, 0
    for run in plan.rows.values():
        cell, config = (run.setting, run.arm, run.budget), run.config
        if cell not in cells:
            calls = count_calls(config, predictor.schedule(config)).total
            seconds = predictor.seconds(config) if is_instrument(config.prior) else None
            cells[cell] = (calls, seconds)
            told = "" if seconds is None else f" {seconds:7.1f} CPU s a run"
            steps = f"{config.steps:5} steps x {config.replay.steps_per_target:2}"
            say(f"{run.setting:18} {run.arm:20} {run.budget:5} {steps} {calls:6} calls{told}")
        calls, seconds = cells[cell]
        if not is_finished(state, run):
            missing += 1
            calls_left += calls
            seconds_left = seconds_left + seconds if seconds is not None else float("nan")
    hours = f"about {seconds_left / 3600:.2f} CPU hours without loading and scoring"
    if math.isnan(seconds_left):
        hours = "hours unknown: they are predicted for toybox alone; the batch shows the time left as it goes"
    total = len(plan.rows)
    say(f"{total} runs in {runs}, {total - missing} finished, {missing} to make: {calls_left} calls, {hours}")


def _make(options: Study, plan: Plan, runs: Path, predictor: Predictor) -> tuple[BatchState, bool]:
    """Make the missing rows; return the state of the shared folder and whether a stop was asked for."""
    from sdi_gs.study.results import workers_metrics

    planned = plan.rows
    base = config_to_dict(RunConfig())
    header = BatchHeader(version=__version__, source="studies", settings={}, rows=len(planned))

    def job_of(state: RowState, attempt: int) -> Job:
        run = planned[state.row.key]
        return Job(
            key=run.row.key,
            folder=str(run.row.folder(runs).absolute()),
            config=base,
            given=run.row.given,
            attempt=attempt,
            scores=workers_metrics(plan.study, run.row, run.config),
        )

    with opened_batch(runs, header, [run.row for run in planned.values()], retry_failed=options.retry_failed) as opened:
        # The folder is a batch's by now, and may hold more.
        predictor.save()
        if opened.skipped:
            say(f"{len(opened.skipped)} runs failed before and are left out; --retry-failed tries them again")
        page = PageWriter(runs)
        prior = next(iter(planned.values())).config.prior
        engine = engine_of(options, prior, runs, len(opened.todo)) if opened.todo else None
        try:
            was_stopped = engine is not None and make_rows(
                engine,
                opened,
                page,
                job_of=job_of,
                attempts=options.attempts,
                max_failures=options.max_failures,
                shown=tuple(planned),
            )
        finally:
            page.write(opened.state, running=False)
        say(totals_of(opened.state.part(planned), None))
        return opened.state, was_stopped


def _write(options: Study, plan: Plan, predictor: Predictor, state: BatchState, runs: Path, out: Path) -> None:
    from sdi_gs.study.report import write_report
    from sdi_gs.study.results import complete_results, is_finished, scorer_of_runs
    from sdi_gs.study.sheets import write_sheets

    complete = sum(all(is_finished(state, run) for run in group) for group in plan.groups)
    if not complete:
        say("no group of prompt and seed is complete yet: no report is written")
        return
    print_paths(
        write_report(
            plan.study,
            complete_results(
                plan,
                state,
                runs,
                score=scorer_of_runs(str(pick_device(options.device))),
                seconds_of=predictor.seconds,
            ),
            out,
            command=_command(options),
            complete=(complete, len(plan.groups)),
            sheets=write_sheets(plan, state, runs, out),
            say=say,
        )
    )


def _report_again(options: Study, studied: Studied, out: Path) -> int:
    from sdi_gs.study.report import write_report
    from sdi_gs.study.results import read_results

    assert options.results is not None
    results = read_results(options.results, studied)
    if options.results.resolve() == (out / "study.json").resolve():
        raise UserError(f"{options.results} would be written over: choose another --output-dir")
    groups = len({(result.setting, result.prompt, result.seed) for result in results})
    paths = write_report(studied, results, out, command=_command(options), complete=(groups, groups), say=say)
    print_paths(paths)
    return 0


def _command(options: Study) -> str:
    """Return the command as it is typed, without where its files go."""
    from sdi_gs.study.report import command_line

    words: list[str] = ["sdi-gs", "study", options.source]
    told: Mapping[str, Any] = {
        "prompt-list": options.prompt_list,
        "key": options.key,
        "prompts": options.prompts,
        "seeds": options.seeds,
        "blocks": options.blocks,
    }
    for name, value in told.items():
        if value:
            words += [f"--{name}", *(map(str, value) if isinstance(value, tuple) else [str(value)])]
    words += ["--set", *options.set] if options.set else []
    words += ["--results", str(options.results)] if options.results else []
    return command_line(words)
