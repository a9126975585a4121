"""A worker: makes one row after the other in the same process, with the prior kept."""

from __future__ import annotations

import gc
import math
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from sdi_gs.batch.engine import Job, RowProgress
from sdi_gs.batch.journal import EventName, RowEvent
from sdi_gs.batch.kept_prior import KeptPrior
from sdi_gs.errors import UserError
from sdi_gs.evaluation.evaluate import evaluate, truth_renders_for
from sdi_gs.evaluation.metrics.table import metric_named
from sdi_gs.priors.catalog import is_in_closed_form
from sdi_gs.runs.checkpoint import list_checkpoints
from sdi_gs.runs.events import CheckpointSaved, Event, StepDone, TrainingStarted
from sdi_gs.runs.finish import read_summary
from sdi_gs.runs.folder import RunFolder
from sdi_gs.runs.launch import launch
from sdi_gs.runs.loading import load
from sdi_gs.runs.memory_tier import chosen_tier
from sdi_gs.runs.request import RunRequest
from sdi_gs.runs.saving import save_state
from sdi_gs.runs.writer_lock import only_writer
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tiers import TierChoice
from sdi_gs.settings.tree import config_from_dict, with_values
from sdi_gs.training.trainer import Trainer

LOCK_SECONDS = 60.0
"""How long a row waits for a worker that was given up to let go of its folder."""
SECONDS_BETWEEN_REPORTS = 1.0
"""Shortest time between two reports of progress."""

Report = Callable[[RowEvent | RowProgress], None]


class RowStopped(Exception):
    """A row was saved and stopped before its last step."""


class Worker:
    """Makes rows on one device."""

    def __init__(self, *, name: str, machine: str, device: torch.device, share: float = 1.0) -> None:
        """``share`` is the part of the card that this worker may fill."""
        self.name = name
        self.machine = machine
        self.device = device
        self.prior = KeptPrior()
        self.truth_renders = truth_renders_for()
        self.was_signalled = False
        """Whether a row was stopped by a signal to this process (Ctrl-C, SIGTERM), which is to end it."""
        self._memory = _card_memory(device, share)

    def make(self, job: Job, report: Report, should_stop: Callable[[], bool]) -> None:
        """Make a row, or go on with it, and report what happens; a row that cannot be made is reported as failed."""
        row = _Row(self, job, report, should_stop)
        try:
            row.make()
        except RowStopped:
            row.report_event("stopped")
            self.was_signalled = not should_stop()
        except UserError as error:
            row.report_event("failed", reason=" ".join(str(error).split()))
        # The trainer and what it refers to in circles would otherwise stay until the next row is under way.
        gc.collect()

    def tier(self, choice: TierChoice, config: RunConfig) -> TierChoice:
        """Return the memory tier of a run: of a card as it was before the prior was loaded, for the worker's share."""
        if choice != "auto" or self._memory is None:
            return choice
        tier = chosen_tier("auto", config, free_bytes=self._memory)
        return "auto" if tier is None else tier.name


class _Row:
    """One attempt at one row."""

    def __init__(self, worker: Worker, job: Job, report: Report, should_stop: Callable[[], bool]) -> None:
        self.worker = worker
        self.job = job
        self.folder = RunFolder(Path(job.folder))
        self._report = report
        self._should_stop = should_stop
        self._started = time.perf_counter()
        self._first: tuple[int, float] | None = None
        """Step and time of the first step's end, which may include compilation and does not count."""
        self._last_report = 0.0
        self._step = 0
        self._steps = 0
        self._saved = -1
        """Step of the latest checkpoint that was reported."""

    def make(self) -> None:
        """Start the run, or go on with it, and report its end; RowStopped if it was stopped before."""
        self._wait_for_lock()
        summary = _complete_summary(self.folder)
        if summary is None:
            result = launch(
                self._request(),
                observers=[self._observe],
                watch=lambda trainer, folder, *, interrupted: nullcontext(
                    _Watcher(trainer, folder, lambda: interrupted() or self._should_stop())
                ),
                prior_for=self.worker.prior,
                started=self._started,
            )
            summary = result.summary
            if not result.is_complete:
                raise RowStopped
        self._step = self._steps = summary["step"]
        scores = self._scores()
        self.report_event("finished", scores=scores or None)

    def report_event(self, event: EventName, **values: Any) -> None:
        """Report an event of the row."""
        worker, job = self.worker, self.job
        self._report(
            RowEvent(
                event=event,
                key=job.key,
                worker=worker.name,
                machine=worker.machine,
                device=str(worker.device),
                attempt=job.attempt,
                step=self._step,
                steps=self._steps or None,
                seconds=round(time.perf_counter() - self._started, 3),
                **values,
            )
        )

    def _request(self) -> RunRequest:
        """Return the request of a new run, or of one that goes on if it has a checkpoint."""
        job, path, device = self.job, self.folder.path, self.worker.device
        config = config_from_dict(dict(job.config))
        needs_no_tier = device.type != "cuda" or is_in_closed_form(config.prior)
        tier: Any = job.tier if needs_no_tier else self.worker.tier(job.tier, with_values(config, job.given))  # pyright: ignore[reportArgumentType]
        if list_checkpoints(self.folder.checkpoints):
            return RunRequest(resume=path, device=device, tier=tier, export=tuple(job.export))
        if path.exists():
            # Of an attempt that ended before its first checkpoint: nothing in it can be gone on with.
            shutil.rmtree(path)
        return RunRequest(
            config=config, given=job.given, device=device, output_dir=path, tier=tier, export=tuple(job.export)
        )

    def _wait_for_lock(self) -> None:
        """Wait until no other process writes to the run folder; UserError if one still does after a minute."""
        patience = time.monotonic() + LOCK_SECONDS
        while self.folder.path.exists():
            try:
                with only_writer(self.folder.path):
                    return
            except UserError:
                if time.monotonic() > patience:
                    raise
                time.sleep(0.5)

    def _observe(self, event: Event) -> None:
        match event:
            case TrainingStarted(step=step, num_steps=steps):
                self._step, self._steps = step, steps
                self.report_event("started")
            case CheckpointSaved(step=step) if step != self._saved:
                # The end of a run saves its last step once more.
                self._step = self._saved = step
                self.report_event("checkpoint")
            case StepDone(report=done):
                self._progress(done.step)
            case _:
                pass

    def _progress(self, step: int) -> None:
        self._step, now = step, time.perf_counter()
        if self._first is None:
            self._first = (step, now)
        if now - self._last_report < SECONDS_BETWEEN_REPORTS:
            return
        self._last_report = now
        first_step, first_time = self._first
        device = self.worker.device
        self._report(
            RowProgress(
                key=self.job.key,
                worker=self.worker.name,
                step=step,
                steps=self._steps,
                seconds=now - self._started,
                steps_per_second=(step - first_step) / (now - first_time) if step > first_step else None,
                gpu_mib=torch.cuda.memory_reserved(device) / 2**20 if device.type == "cuda" else None,
            )
        )

    def _scores(self) -> dict[str, float]:
        """Return the values of the wanted metrics that are finite numbers."""
        if not self.job.scores:
            return {}
        scene = load(self.folder.path, device=self.worker.device)
        metrics = [metric_named(name) for name in self.job.scores]
        evaluation = evaluate(scene, metrics=metrics, truth_renders=self.worker.truth_renders)
        return {
            name: float(value)
            for name, value in evaluation.scores.items()
            if isinstance(value, int | float) and math.isfinite(value)
        }


class _Watcher:
    """Saves a row and ends it after the step in which a stop was asked for; nothing is exported."""

    stop_requested = False

    def __init__(self, trainer: Trainer, folder: RunFolder, should_stop: Callable[[], bool]) -> None:
        self._trainer = trainer
        self._folder = folder
        self._should_stop = should_stop

    def observe(self, event: Event) -> None:
        """Raise RowStopped after a step that is not the last one, if a stop was asked for."""
        trainer = self._trainer
        if isinstance(event, StepDone) and trainer.step < trainer.config.total_steps and self._should_stop():
            save_state(trainer, self._folder)
            raise RowStopped


def _complete_summary(folder: RunFolder) -> dict[str, Any] | None:
    """Return the summary of a run that has been made to its end; None for any other."""
    summary = read_summary(folder)
    if summary is None or not folder.config.is_file():
        return None
    step, steps = summary.get("step"), summary.get("steps")
    return summary if isinstance(step, int) and isinstance(steps, int) and step >= steps else None


def _card_memory(device: torch.device, share: float) -> int | None:
    """Return the bytes of a card that a worker may fill; None on a CPU."""
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    return int(min(free, total * share))
