"""``sdi-gs batch``: every prompt of a list, on all devices of a machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from sdi_gs import __version__
from sdi_gs.batch.display import totals_of
from sdi_gs.batch.engine import Job
from sdi_gs.batch.journal import BatchHeader
from sdi_gs.batch.opening import OpenBatch, opened_batch
from sdi_gs.batch.page import PageWriter
from sdi_gs.batch.ranking import metrics_for, ranking_named, require_scores
from sdi_gs.batch.state import RowState
from sdi_gs.commands.batch_engine import EngineOptions, engine_of, make_rows, require_engine
from sdi_gs.commands.common import EXIT_INTERRUPTED
from sdi_gs.commands.defaults import named_settings, settings_for_device
from sdi_gs.commands.given import given_type
from sdi_gs.console import print_path, say
from sdi_gs.errors import UserError
from sdi_gs.runs.folder import slug
from sdi_gs.runs.request import RunRequest
from sdi_gs.settings.bounds import SEED, Range, check_settings
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tiers import TierChoice
from sdi_gs.settings.tree import config_to_dict, flatten

if TYPE_CHECKING:
    GivenSettings = Mapping[str, Any]
else:
    GivenSettings = given_type(RunConfig)

EXIT_ROWS_FAILED = 1
"""Some rows could not be made."""


@dataclass(frozen=True, kw_only=True)
class Batch(EngineOptions):
    """Make every prompt of a list: one run folder each in OUT/runs, the state in OUT/batch.jsonl.

    The same command again skips what is finished and goes on with what is not.
    """

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="LIST")]
    """Prompts: a text file with one a line, a CSV or JSONL table (columns prompt, seed, name and any setting), or a
    prompt library in threestudio's JSON form."""
    settings: Annotated[GivenSettings, tyro.conf.arg(name="")]
    key: str | None = None
    """Name of one of a library's lists."""
    seeds: Annotated[tuple[int, ...], SEED] = ()
    """Seeds that each prompt is made with, unless its row has its own; --seed alone if not given."""
    skip_bad: bool = False
    """Go on without the rows that cannot be made, which are listed."""
    output_dir: Path | None = None
    """The batch's folder, new or that of the same batch; outputs/batch-<name of the list> if not given."""
    preset: str | None = None
    """Settings to start from, as in sdi-gs train."""
    tier: TierChoice = "auto"
    """Memory tier in GB, which sets what --compute.* leaves open; auto goes by a CUDA card's free memory."""
    export: tuple[str, ...] = ()
    """Formats that each result is also written in at the end of its run: those of sdi-gs export."""
    attempts: Annotated[int, Range(1, 100)] = 3
    """How many times a row is tried whose worker ends while it has it (killed, out of memory)."""
    max_failures: Annotated[int | None, Range(1, 1_000_000)] = None
    """Failed rows after which the batch saves what is running and ends; any number if not given."""
    retry_failed: bool = False
    """Try the rows again that failed before."""
    keep_best: Annotated[int, Range(1, 1000, zero_means="none")] = 0
    """Mark this many of each prompt's seeds as its best, by the score; nothing is removed."""
    score: str = "judge"
    """Score that every toybox result gets, and that --keep-best goes by: judge or truth."""

    def __post_init__(self) -> None:
        check_settings(self)


def batch(options: Batch) -> int:
    """Make the rows of a list; return 0, 1 if rows failed, or 130 for a batch that was stopped."""
    require_engine(options)
    settings = BatchSettings(options)
    # What is wrong in the command itself is no row's fault.
    common = settings.of({})
    ranking = ranking_named(options.score)
    out = options.output_dir or Path("outputs") / f"batch-{slug(options.source.stem)}"
    from sdi_gs.batch.checked_rows import checked_rows

    planned = checked_rows(
        options.source,
        key=options.key,
        seeds=options.seeds or None,
        settings_of=settings.of,
        out=out,
        skip_bad=options.skip_bad,
        say=say,
    )
    if options.keep_best:
        require_scores(ranking, planned.rows, planned.configs)
    header = BatchHeader(
        version=__version__,
        source=str(options.source),
        settings=flatten(config_to_dict(common)),
        rows=len(planned.rows),
    )
    with opened_batch(out, header, planned.rows, retry_failed=options.retry_failed) as opened:
        _say_what_comes(opened, out)
        page = PageWriter(out, keep=options.keep_best, ranking=ranking)
        # Outside: where there is no engine there is nothing to show.
        engine = engine_of(options, common.prior, out, len(opened.todo)) if opened.todo else None
        try:
            was_stopped = engine is not None and make_rows(
                engine,
                opened,
                page,
                job_of=lambda state, attempt: settings.job_of(state, attempt, out, (ranking.metric,)),
                attempts=options.attempts,
                max_failures=options.max_failures,
            )
        finally:
            page.write(opened.state, running=False)
    print_path(page.path)
    say(totals_of(opened.state, None))
    if was_stopped:
        say("stopped; the same command again goes on")
        return EXIT_INTERRUPTED
    return 0 if opened.state.count("finished") == len(opened.state.rows) else EXIT_ROWS_FAILED


class BatchSettings:
    """From a row's own settings to those of its run."""

    def __init__(self, options: Batch) -> None:
        """Raise UserError for options that do not go with a list."""
        self._options = options
        self.given = flatten(dict(options.settings))
        self._bases: dict[tuple[str | None, str | None], RunConfig] = {}
        if "prompt" in self.given:
            raise UserError(f"the prompts come from {options.source}: leave --prompt out")
        if options.seeds and "seed" in self.given:
            raise UserError(f"--seed {self.given['seed']} has no effect beside --seeds: leave one of them out")

    def of(self, own: Mapping[str, Any]) -> RunConfig:
        """Return the settings of a run with a row's own settings; UserError for values that are not valid."""
        return self._request(own).settings()

    def job_of(self, state: RowState, attempt: int, out: Path, scores: Sequence[str] = ()) -> Job:
        """Return a row's job."""
        request = self._request(state.row.given)
        assert request.config is not None
        return Job(
            key=state.row.key,
            folder=str(state.row.folder(out).absolute()),
            config=config_to_dict(request.config),
            given=request.given,
            tier=request.tier,
            attempt=attempt,
            export=request.export,
            scores=metrics_for(scores, prompt=state.row.prompt, prior=request.given.get("prior", request.config.prior)),
        )

    def _request(self, own: Mapping[str, Any]) -> RunRequest:
        options, given = self._options, {**self.given, **own}
        config = self._base(given.get("prior"), given.get("representation"))
        return RunRequest(config=config, given=given, tier=options.tier, export=options.export)

    def _base(self, prior: str | None, representation: str | None) -> RunConfig:
        """Return the settings that preset, prior, representation and device choose."""
        choice = (prior, representation)
        if choice not in self._bases:
            options = self._options
            named = named_settings(options.preset, prior, None, representation)
            config, _ = named or settings_for_device(options.device, representation)
            assert config is not None
            self._bases[choice] = config
        return self._bases[choice]


def _say_what_comes(opened: OpenBatch, out: Path) -> None:
    rows, done = opened.state.rows, opened.state.count("finished")
    say(f"{out}: {len(rows)} row{'s' * (len(rows) != 1)}, {len(opened.todo)} to make, {done} finished")
    if opened.skipped:
        say(f"failed before and left out: {len(opened.skipped)}; --retry-failed tries these again")
    if opened.other_version is not None:
        say(f"the batch was begun with version {opened.other_version}, this is {__version__}: results may differ")
