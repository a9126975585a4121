"""Scores of a finished scene: every metric that applies to its prompt (docs/eval.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sdi_gs.console import printable
from sdi_gs.errors import UserError
from sdi_gs.evaluation.metrics.metric import IMAGE_SIZE, Metric, Subject, TableRow, has_value
from sdi_gs.evaluation.metrics.table import METRICS
from sdi_gs.evaluation.metrics.truth import toybox_prompt
from sdi_gs.evaluation.networks.kept import Networks
from sdi_gs.runs.loading import AnyScene, SavedScene, representation_of
from sdi_gs.settings.protocols import ORBIT, ViewProtocol
from sdi_gs.settings.run import RunConfig
from sdi_gs.toybox.captions import ToyboxPrompt
from sdi_gs.toybox.truth import NUM_DRAWS, held_out_cameras
from sdi_gs.toybox.truth_renders import TruthRenders

KEPT_BYTES = 160 * 2**20
"""Memory for true objects between scenes: those of two prompts. Runs of one prompt follow one another."""
INSTRUMENT_REMARK = "toybox is an instrument: it measures the method on toy objects, not quality in the wild"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The scores of one scene, with the context for reading them."""

    source: str | None
    """Path of the scene; None for one in memory."""
    prompt: str
    """Prompt that the scene was scored by."""
    scores: dict[str, Any]
    """Values of all metrics that were computed, by key."""
    rows: tuple[TableRow, ...]
    """Rows of the printed table."""
    instrument: str | None
    """``toybox`` where a truth or a judge of toybox was used, else None."""
    left_out: str | None = None
    """Why the metrics that need a truth were not computed; None where none was left out."""
    skipped: Mapping[str, str] | None = None
    """Metrics that could not be computed here, each with the reason; None where they were named."""

    def as_json(self) -> dict[str, Any]:
        """Return the keys of docs/eval.md."""
        skipped = {} if self.skipped is None else {"skipped": dict(self.skipped)}
        return {"instrument": self.instrument, "source": self.source, "prompt": self.prompt, **self.scores, **skipped}

    def print(self) -> None:
        """Print a small table on stdout."""
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        title = self.prompt if self.source is None else f"{self.prompt}: {self.source}"
        table = Table()
        # Rows and columns without any value are left out: most scenes have no ceiling, and many scores are of styles.
        rows = [cells for row in self.rows if has_value((cells := row.cells(self.scores))[1:])]
        columns = list(zip(("", "score", "ceiling (converged)", "floor"), *rows, strict=True))
        columns = [column for column in columns if not column[0] or has_value(column[1:])]
        for column in columns:
            table.add_column(column[0], justify="left" if not column[0] else "right")
        for cells in zip(*(column[1:] for column in columns), strict=True):
            table.add_row(*cells)
        console = Console(highlight=False)
        # As a line of its own: a table's title is broken to the table's width.
        console.print(Text(printable(title)), soft_wrap=True)
        console.print(table, markup=False)
        if self.instrument is not None:
            console.print(INSTRUMENT_REMARK, soft_wrap=True)
        for name, reason in (self.skipped or {}).items():
            console.print(Text(printable(f"skipped: {name}: {reason}")), soft_wrap=True)


def evaluate(
    scene: AnyScene,
    prompt: str | None = None,
    *,
    metrics: Sequence[Metric] | None = None,
    num_draws: int = NUM_DRAWS,
    image_size: int = IMAGE_SIZE,
    ceiling_config: RunConfig | None = None,
    protocol: ViewProtocol = ORBIT,
    prompts: Sequence[str] = (),
    networks: Networks | None = None,
    truth_renders: TruthRenders | None = None,
) -> Evaluation:
    """Score a loaded scene, ``trainer.scene`` or a representation under a prompt; a run has one of its own.

    Without ``metrics`` all of ``METRICS`` that apply are computed; those that need a truth apply to toybox prompts.
    ``ceiling_config`` is the run whose settings the ceiling is fitted with; None for no ceiling. ``protocol`` places
    the cameras of the metrics without a truth, ``prompts`` are those among which a picture has to find its own, and
    ``networks`` keeps the networks of the learned metrics for the next scene, ``truth_renders`` the true objects of
    toybox in the held-out views (``truth_renders_for``).

    Raises UserError without a prompt, and if one of the given ``metrics`` needs a truth that the prompt does
    not have or a network that is not here.
    """
    source, run = (str(scene.path), scene.run) if isinstance(scene, SavedScene) else (None, None)
    prompt = prompt or (run.config.prompt if run is not None else None)
    if not prompt:
        raise UserError(f'{source or "the scene"} has no prompt to be scored by: add --prompt "a blue robot"')
    chosen, toybox, left_out = _applicable(prompt, metrics)
    subject = Subject(
        representation=representation_of(scene),
        run=run,
        prompt=prompt,
        toybox=toybox,
        image_size=image_size,
        num_draws=num_draws,
        ceiling_config=ceiling_config,
        protocol=protocol,
        prompts=tuple(dict.fromkeys([*prompts, prompt])),
        networks=networks or Networks(device=representation_of(scene).device),
        truth_renders=truth_renders,
    )
    rows, skipped = _compute(subject, chosen, named=metrics is not None)
    return Evaluation(
        source=source,
        prompt=prompt,
        scores=dict(subject.scores),
        rows=tuple(rows),
        instrument="toybox" if any(metric.needs_truth for metric in chosen) else None,
        left_out=left_out,
        skipped=skipped if metrics is None else None,
    )


def truth_renders_for(image_size: int = IMAGE_SIZE, *, most_bytes: int = KEPT_BYTES) -> TruthRenders:
    """Return what keeps true objects in the held-out views for one scene after the other: ``evaluate``."""
    return TruthRenders(held_out_cameras(image_size), most_bytes=most_bytes)


def _applicable(
    prompt: str, metrics: Sequence[Metric] | None
) -> tuple[Sequence[Metric], ToyboxPrompt | None, str | None]:
    """Return the metrics for a prompt, what toybox takes it for, and why those that need a truth are not among them."""
    chosen = METRICS if metrics is None else tuple(metrics)
    try:
        return chosen, toybox_prompt(prompt), None
    except UserError as error:
        without_truth = tuple(metric for metric in chosen if not metric.needs_truth)
        if len(without_truth) == len(chosen):
            return chosen, None, None
        if metrics is not None:
            raise
        return without_truth, None, str(error)


def _compute(subject: Subject, metrics: Sequence[Metric], *, named: bool) -> tuple[list[TableRow], dict[str, str]]:
    """Put the values of the metrics into the subject's scores; return the table's rows and what is skipped, and why.

    Raises UserError for a metric that cannot be computed here, if they were ``named``.
    """
    rows: list[TableRow] = []
    skipped: dict[str, str] = {}
    for metric in metrics:
        reason = metric.why_not(subject)
        if reason is not None:
            if named:
                raise UserError(f"metric {metric.name}: {reason}")
            skipped[metric.name] = reason
            continue
        values = metric.compute(subject)
        twice = sorted(values.keys() & subject.scores.keys())
        if twice:
            raise ValueError(f"metric {metric.name} gives {', '.join(twice)}, which another metric has given already")
        subject.scores.update(values)
        rows += metric.rows_for(values)
    return rows, skipped
