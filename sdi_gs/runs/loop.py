"""The loop of a run: step, log, show, save, and go on with less memory where it runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch

from sdi_gs.contracts import StepReport
from sdi_gs.errors import NonFiniteError, UserError
from sdi_gs.representations.catalog import entry_of
from sdi_gs.runs.folder import RunFolder
from sdi_gs.runs.saving import change_settings, save_preview, save_state
from sdi_gs.settings.tiers import Tier, next_lower, saving_at_least
from sdi_gs.training.trainer import Trainer

Observer = Callable[[Trainer, StepReport], None]


def train(
    trainer: Trainer,
    folder: RunFolder,
    *,
    observers: Iterable[Observer] = (),
    should_stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda _: None,
) -> bool:
    """Train to the end or until asked to stop, logging, showing and saving; True if the end was reached.

    A step that runs out of memory is taken again on the next lower memory tier, and ``say`` tells so.

    Raises NonFiniteError where a step came to nothing, and UserError where memory does not suffice on the lowest tier;
    the state before that step is then saved.
    """
    outputs, observers = trainer.config.outputs, list(observers)
    while trainer.step < trainer.config.steps and not should_stop():
        try:
            report = trainer.train_step()
        except NonFiniteError:
            save_state(trainer, folder)
            raise
        except torch.OutOfMemoryError:
            report = None
        if report is None:
            # Only here, where the error has let go of the step's tensors, is there memory to be had.
            step_down(trainer, folder, say=say)
            continue
        folder.append_step(_log_line(report))
        if outputs.preview_every and report.step % outputs.preview_every == 0:
            save_preview(trainer, folder)
        if outputs.checkpoint_every and report.step % outputs.checkpoint_every == 0:
            save_state(trainer, folder)
        for observe in observers:
            observe(trainer, report)
    return trainer.step >= trainer.config.steps


def step_down(trainer: Trainer, folder: RunFolder, *, say: Callable[[str], None]) -> None:
    """Go on at the next lower memory tier after a step that ran out of memory.

    Raises UserError on the lowest one, with the state saved.
    """
    if trainer.device.type == "cuda":
        torch.cuda.empty_cache()
    config, step = trainer.config, trainer.step + 1
    casts_rays = trainer.scene_name is None and entry_of(config).casts_rays
    rays = config.views_per_step * trainer.prior.image_size**2 if casts_rays else 0
    branches = 4 if config.guidance.perp_neg else 2
    lower = next_lower(config.compute, views=config.views_per_step, branches=branches, rays=rays)
    if lower is None:
        save_state(trainer, folder)
        raise UserError(
            f"step {step}: out of memory with all that saves memory turned on; the state before this step is saved: "
            f"close other programs and go on with sdi-gs train --resume {folder.path}, or start anew with fewer views"
        )
    tier, compute = lower
    change_settings(trainer, folder, replace(config, compute=compute))
    say(f"step {step}: out of memory; it is taken again on tier {tier.name} ({tier.summary}), and nothing is lost")


def keep_within_tier(trainer: Trainer, folder: RunFolder, tier: Tier) -> None:
    """Have a resumed run save at least what a tier saves."""
    config = trainer.config
    change_settings(trainer, folder, replace(config, compute=saving_at_least(config.compute, tier.compute)))


def _log_line(report: StepReport) -> dict[str, Any]:
    return {
        "step": report.step,
        "t": report.timestep,
        "loss": sum(report.losses.values()),
        "losses": report.losses,
        "n_gaussians": report.num_points,
        "predictor_calls": report.predictor_calls,
        "seconds": report.seconds,
    }
