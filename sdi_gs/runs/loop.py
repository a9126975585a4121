"""The loop of a run: step, log, preview, checkpoint; a lower memory tier if memory runs out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sdi_gs.contracts import StepReport
from sdi_gs.contracts.prior_extras import WideningPrior
from sdi_gs.devices import is_out_of_memory
from sdi_gs.errors import NonFiniteError, UserError
from sdi_gs.representations.catalog import entry_of
from sdi_gs.runs.events import Notice, Observer, SettingsChanged, StepDone, TierLowered, TrainingStarted, broadcast
from sdi_gs.runs.export_formats import ExportFormat
from sdi_gs.runs.finish import finish
from sdi_gs.runs.folder import RunFolder, create_run_folder_at, resume_command
from sdi_gs.runs.saving import change_settings, save_preview, save_state
from sdi_gs.runs.spare_descriptors import spare_descriptors
from sdi_gs.runs.way_on import errors_with_a_way_on, saved_steps, way_past_step
from sdi_gs.runs.writer_lock import only_writer
from sdi_gs.settings.tiers import Tier, next_lower, saving_at_least
from sdi_gs.settings.tree import config_to_dict
from sdi_gs.training.trainer import Trainer


def run(
    trainer: Trainer,
    folder: RunFolder | Path | str,
    *,
    observers: Iterable[Observer] = (),
    should_stop: Callable[[], bool] = lambda: False,
    started: float | None = None,
) -> dict[str, Any]:
    """Train to the last step or until ``should_stop``, save, export, and return the summary.

    ``folder`` is the run's folder, or the path of one to create, new or empty. ``started`` is the
    ``time.perf_counter()`` from which ``wall_seconds`` counts, now if None. Raises as ``train`` and ``finish`` do, and
    UserError for a folder that another process is writing to, or has written to since the trainer was loaded.
    """
    started = time.perf_counter() if started is None else started
    if not isinstance(folder, RunFolder):
        folder = create_run_folder_at(Path(folder))
        folder.write_config(config_to_dict(trainer.config))
    with only_writer(folder.path):
        _require_not_passed(trainer, folder)
        return train_and_finish(trainer, folder, observers=observers, should_stop=should_stop, started=started)


def train_and_finish(
    trainer: Trainer,
    folder: RunFolder,
    *,
    observers: Iterable[Observer],
    should_stop: Callable[[], bool],
    started: float,
    exports: Sequence[ExportFormat] = (),
) -> dict[str, Any]:
    """Do what ``run`` does, for a caller that holds the folder; every UserError names the command that goes on.

    ``exports`` are formats to write besides the .ply.
    """
    emit = broadcast(observers)
    with errors_with_a_way_on(folder):
        train(trainer, folder, observers=[emit], should_stop=should_stop)
        return finish(trainer, folder, started=started, emit=emit, exports=exports)


def train_on(
    trainer: Trainer,
    folder: RunFolder,
    more: int,
    *,
    observers: Iterable[Observer],
    should_stop: Callable[[], bool],
    exports: Sequence[ExportFormat] = (),
) -> dict[str, Any]:
    """Take ``more`` steps of a run that has ended and that the caller still holds, as ``--extend`` does."""
    target, config = trainer.step + more, trainer.config
    change_settings(trainer, folder, replace(config, extend=max(target - config.steps, config.extend)))
    return train_and_finish(
        trainer,
        folder,
        observers=observers,
        should_stop=lambda: should_stop() or trainer.step >= target,
        started=time.perf_counter(),
        exports=exports,
    )


def train(
    trainer: Trainer,
    folder: RunFolder,
    *,
    observers: Iterable[Observer] = (),
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Train to the last step or until ``should_stop``; return whether the last step was reached.

    Emits TrainingStarted, then for every step PreviewSaved and CheckpointSaved if these are due, and StepDone. A
    step that runs out of memory is repeated on the next lower memory tier (TierLowered), one that is not finite with
    networks of half precision in float32 (Notice). Settings that an observer changed are reported after the step
    (SettingsChanged).

    Raises NonFiniteError if a step yields non-finite values otherwise, and UserError if memory does not suffice
    on the lowest tier; the state before that step is saved first, and no earlier checkpoint is removed. Raises
    UserError too if the log or a checkpoint cannot be written; the state after the step is saved first, if at all
    possible.
    """
    with spare_descriptors() as release:
        return _train(trainer, folder, broadcast(observers), should_stop, release)


def _train(
    trainer: Trainer,
    folder: RunFolder,
    emit: Observer,
    should_stop: Callable[[], bool],
    release: Callable[[], None],
) -> bool:
    """Do what ``train`` does; ``release`` frees the descriptors that were kept for saving."""
    first = trainer.step
    emit(TrainingStarted(step=trainer.step, num_steps=trainer.config.total_steps))
    while trainer.step < trainer.config.total_steps and not should_stop():
        try:
            report = trainer.train_step()
        except NonFiniteError as error:
            if widen(trainer, folder, why=str(error), emit=emit):
                continue
            save_state(trainer, folder, emit=emit, keep_all=True)
            raise NonFiniteError(f"{error}: {way_past_step(trainer, folder, at_once=trainer.step == first)}") from error
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            report = None
        if report is None:
            # Only outside the except block is the memory of the failed step free again.
            step_down(trainer, folder, emit=emit)
            continue
        try:
            _record(trainer, folder, report, emit=emit)
        except UserError:
            release()
            _save_before_giving_up(trainer, folder, report, emit=emit)
            raise
    return trainer.step >= trainer.config.total_steps


def _record(trainer: Trainer, folder: RunFolder, report: StepReport, *, emit: Observer) -> None:
    """Log a finished step, save what is due after it, and emit StepDone and the changes that observers made."""
    outputs = trainer.config.outputs
    folder.append_step(_log_line(report))
    if outputs.preview_every and report.step % outputs.preview_every == 0:
        save_preview(trainer, folder, emit=emit)
    if outputs.checkpoint_every and report.step % outputs.checkpoint_every == 0:
        save_state(trainer, folder, emit=emit)
    num_changes = len(trainer.changes)
    emit(StepDone(report=report))
    for change in trainer.changes[num_changes:]:
        emit(SettingsChanged(step=change["step"], changed=change["changed"]))


def _save_before_giving_up(trainer: Trainer, folder: RunFolder, report: StepReport, *, emit: Observer) -> None:
    """Save the state, and log the step if its line is missing, after a step whose results could not be written.

    Does what it can: on a full disk that is nothing, and the first error says more than a second one.
    """
    with suppress(UserError, OSError):
        save_state(trainer, folder, emit=emit, keep_all=True)
    with suppress(UserError, OSError):
        if not any(line["step"] == report.step for line in folder.read_steps()[-1:]):
            folder.append_step(_log_line(report))


def widen(trainer: Trainer, folder: RunFolder, *, why: str, emit: Observer) -> bool:
    """Let the network of half precision that may have overflowed compute in float32 from the next step on.

    Return False if the prior has none, or offers nothing new.
    """
    config, prior = trainer.config, trainer.prior
    wider = prior.widened(config.compute) if isinstance(prior, WideningPrior) else None
    if wider is None or wider.compute == config.compute:
        return False
    change_settings(trainer, folder, replace(config, compute=wider.compute))
    emit(Notice(text=f"{why}: the step is repeated with the {wider.network} in float32, in which the run goes on"))
    return True


def step_down(trainer: Trainer, folder: RunFolder, *, emit: Observer) -> None:
    """Move to the next lower memory tier after a step that ran out of memory.

    Raises UserError on the lowest tier, with the state saved.
    """
    if trainer.device.type == "cuda":
        torch.cuda.empty_cache()
    config, step = trainer.config, trainer.step + 1
    casts_rays = trainer.scene_name is None and entry_of(config).casts_rays
    rays = config.views_per_step * config.render.largest(trainer.prior.image_size) ** 2 if casts_rays else 0
    branches = 4 if config.guidance.perp_neg else 2
    lower = next_lower(config.compute, views=config.views_per_step, branches=branches, rays=rays)
    if lower is None:
        save_state(trainer, folder, emit=emit, keep_all=True)
        fewer = f", or with --views-per-step {config.views_per_step // 2} as well" if config.views_per_step > 1 else ""
        raise UserError(
            f"step {step}: out of memory with all that saves memory turned on; the state before this step is saved: "
            f"close other programs and go on with {resume_command(folder.path)}{fewer}"
        )
    # Graphs keep the memory that they work in.
    tier, compute = lower[0], replace(lower[1], cuda_graphs=False)
    change_settings(trainer, folder, replace(config, compute=compute))
    emit(TierLowered(step=step, tier=tier))


def keep_within_tier(trainer: Trainer, folder: RunFolder, tier: Tier) -> None:
    """Make a resumed run save at least the memory that a tier saves."""
    config = trainer.config
    change_settings(trainer, folder, replace(config, compute=saving_at_least(config.compute, tier.compute)))


def _require_not_passed(trainer: Trainer, folder: RunFolder) -> None:
    """Raise UserError if the folder has a later state than the trainer."""
    steps = saved_steps(folder)
    if steps and steps[-1] > trainer.step:
        raise UserError(
            f"{folder.path} is at step {steps[-1]} and was loaded at step {trainer.step}: another process has gone on "
            "with it; load it again"
        )


def _log_line(report: StepReport) -> dict[str, Any]:
    return {
        "step": report.step,
        "round": report.num_rounds,
        "t": report.timestep,
        "loss": sum(report.losses.values()),
        "losses": report.losses,
        "n_gaussians": report.num_points,
        "predictor_calls": report.predictor_calls,
        "seconds": report.seconds,
    }
