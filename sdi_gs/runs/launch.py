"""Start a run, or go on with a stopped one, exactly as ``sdi-gs train`` does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from sdi_gs.contracts import Scene
from sdi_gs.contracts.prior_extras import SlowStartingPrior
from sdi_gs.devices import pick_device
from sdi_gs.errors import UserError
from sdi_gs.files import refuse_used_folder
from sdi_gs.guidance.noise_sources.protocol import InfersNoise
from sdi_gs.runs.checkpoint import is_checkpoint
from sdi_gs.runs.checkpoint_folders import step_of
from sdi_gs.runs.events import Event, Notice, Observer, Planned, Resumed, StageStarted, broadcast, ignore
from sdi_gs.runs.export_formats import ExportFormat
from sdi_gs.runs.folder import RunFolder, load_run_config
from sdi_gs.runs.interrupts import Interrupts, StoppedAtOnce
from sdi_gs.runs.loop import keep_within_tier, train_and_finish
from sdi_gs.runs.memory_tier import tier_of_run
from sdi_gs.runs.prepare import LoadPrior, load_stopped, newly_loaded, prepare_run, require_kernels
from sdi_gs.runs.request import RunRequest
from sdi_gs.runs.resuming import asked_changes, asked_settings, change_lines
from sdi_gs.runs.two_stage import field_stage, splat_stage
from sdi_gs.runs.way_on import way_on
from sdi_gs.runs.writer_lock import only_writer
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tiers import under_tier
from sdi_gs.training.trainer import Trainer


class Watcher(Protocol):
    """An observer that may end the run, such as the live viewer."""

    @property
    def stop_requested(self) -> bool:
        """Whether the run should stop after this step, then save and export."""
        ...

    def observe(self, event: Event) -> None:
        """Take notice of an event; the run waits until it returns."""
        ...


class Watch(Protocol):
    """Makes the watcher of a run; the run's loop and its exports happen inside the context."""

    def __call__(
        self, trainer: Trainer, folder: RunFolder, *, interrupted: Callable[[], bool]
    ) -> AbstractContextManager[Watcher | None]:
        """``interrupted`` returns whether Ctrl-C was pressed."""
        ...


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run left."""

    folder: RunFolder
    summary: dict[str, Any]
    """The content of ``summary.json``."""

    @property
    def is_complete(self) -> bool:
        """Whether the last step was reached; a stopped run can be resumed."""
        return self.summary["step"] >= self.summary["steps"]


def launch(
    request: RunRequest,
    *,
    observers: Iterable[Observer] = (),
    watch: Watch | None = None,
    scene: Scene | None = None,
    noise_source: InfersNoise | None = None,
    prior_for: LoadPrior = newly_loaded,
    started: float | None = None,
) -> RunResult:
    """Run what is requested to its end and return what it left; of two stages, what the last one left.

    ``scene`` and ``noise_source`` are your own, to use instead of the configured ones; resume such a run with the same.
    ``prior_for`` returns the prior of a run's settings, which an earlier run may have loaded.
    In the main thread Ctrl-C asks for an orderly stop, after which the run is saved and exported; a second one stops
    at once. ``started`` is the ``time.perf_counter()`` from which ``wall_seconds`` counts, now if None.

    Raises UserError for a request that cannot be run, before anything is written, and for a run stopped at once.
    """
    launched = _Launch(
        request=request,
        device=pick_device(None if request.device is None else str(request.device)),
        emit=broadcast(observers),
        watch=watch or _unwatched,
        scene=scene,
        noise_source=noise_source,
        prior_for=prior_for,
        started=time.perf_counter() if started is None else started,
    )
    return launched.result()


def settings_of_new_run(request: RunRequest, *, device: torch.device, emit: Observer = ignore) -> RunConfig:
    """Return the settings of a run that is not resumed: the request's, over those of the memory tier.

    Raises UserError if the card is too small for every tier and none was named.
    """
    config = request.settings()
    tier = tier_of_run(request.tier, config, device=device, emit=emit)
    return config if tier is None else request.settings(compute=under_tier(config.compute, tier.compute))


def _unwatched(trainer: Trainer, folder: RunFolder, *, interrupted: Callable[[], bool]) -> nullcontext[None]:
    return nullcontext()


@dataclass(frozen=True, kw_only=True)
class _Launch:
    """One call of ``launch``."""

    request: RunRequest
    device: torch.device
    emit: Observer
    watch: Watch
    scene: Scene | None
    noise_source: InfersNoise | None
    prior_for: LoadPrior
    started: float

    def result(self) -> RunResult:
        """Prepare the requested run and run it."""
        request = self.request
        if request.resume is not None:
            return self._resume(request.resume)
        if request.two_stage and self.scene is not None:
            raise UserError("two stages make their own scenes: leave scene out, or two_stage")
        config = settings_of_new_run(request, device=self.device, emit=self.emit)
        self.emit(Planned(config=config, device=str(self.device)))
        if request.two_stage:
            return self._run_two_stages(config)
        return self._run_new(config, request.output_dir, exports=request.exports())

    def _run_new(self, config: RunConfig, folder: Path | None, *, exports: Sequence[ExportFormat]) -> RunResult:
        """Run the settings in a new folder, the next free one if None."""
        trainer, made = prepare_run(
            config,
            device=self.device,
            folder=folder,
            scene=self.scene,
            noise_source=self.noise_source,
            prior_for=self.prior_for,
        )
        with only_writer(made.path):
            return self._run(trainer, made, exports)

    def _run_two_stages(self, config: RunConfig) -> RunResult:
        """Train a field, then splats that start from it, each as a run of its own."""
        stages, out = self.request.stages, self.request.output_dir
        first = field_stage(config, stages, self.request.field_settings(config.compute))
        if out is not None:
            refuse_used_folder(out, "choose another --output-dir")
        # Now rather than hours later, when the second stage begins.
        require_kernels(self.device)
        self.emit(StageStarted(number=1, config=first))
        result = self._run_new(first, out and out.with_name(f"{out.name}-field"), exports=())
        field = result.folder.path
        second = splat_stage(config, stages, field)
        if not result.is_complete:
            text = (
                "once the field is done, start the splats with this run's options, without --two-stage, and with: "
                f"--init-from {field} --steps {second.steps} --guidance.t-max {second.guidance.t_max} "
                "--guidance.random-fraction 0"
            )
            self.emit(Notice(text=text))
            return result
        self.emit(StageStarted(number=2, config=second))
        return self._run_new(second, out, exports=self.request.exports())

    def _resume(self, path: Path) -> RunResult:
        """Go on with a run, under what the request changes."""
        request, at = self.request, self.request.at
        if is_checkpoint(path):
            run, step = path.parent.parent, step_of(path)
            raise UserError(f"{path} is a checkpoint: give the run and the step, --resume {run} --at {step}")
        saved = load_run_config(path)
        asked, changes = asked_settings(request, saved), asked_changes(request, saved, path)
        self.emit(Planned(config=asked, device=str(self.device)))
        with ExitStack() as held:
            if at is None:
                held.enter_context(only_writer(path))
            trainer, folder, changed = load_stopped(
                path,
                device=self.device,
                scene=self.scene,
                noise_source=self.noise_source,
                at=at,
                folder=request.output_dir,
                changes=changes,
                prior_for=self.prior_for,
            )
            if at is not None:
                held.enter_context(only_writer(folder.path))
                self.emit(Notice(text=f"{path} stays as it is; a copy of it goes on in {folder.path}"))
            self.emit(Resumed(folder=folder.path, step=trainer.step, num_steps=trainer.config.total_steps))
            for line in change_lines(trainer.step, changed, trainer.config):
                self.emit(Notice(text=line))
            tier = tier_of_run(request.tier, asked, device=self.device, emit=self.emit)
            if tier is not None:
                keep_within_tier(trainer, folder, tier)
            return self._run(trainer, folder, request.exports())

    def _run(self, trainer: Trainer, folder: RunFolder, exports: Sequence[ExportFormat]) -> RunResult:
        """Run to the end, or until Ctrl-C or the watcher asks for a stop."""
        if isinstance(trainer.prior, SlowStartingPrior) and trainer.prior.slow_start is not None:
            self.emit(Notice(text=trainer.prior.slow_start))
        try:
            with (
                Interrupts("stopping after this step, then saving; Ctrl-C once more stops at once") as interrupts,
                self.watch(trainer, folder, interrupted=lambda: interrupts.requested) as watcher,
            ):
                summary = train_and_finish(
                    trainer,
                    folder,
                    observers=[self.emit] if watcher is None else [self.emit, watcher.observe],
                    should_stop=lambda: interrupts.requested or (watcher is not None and watcher.stop_requested),
                    started=self.started,
                    exports=exports,
                )
        except StoppedAtOnce:
            raise UserError(f"stopped at once; {way_on(folder)}") from None
        return RunResult(folder=folder, summary=summary)
