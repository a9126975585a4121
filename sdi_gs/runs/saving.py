"""Save checkpoints, previews and changed settings during a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from sdi_gs.devices import is_out_of_memory
from sdi_gs.errors import UserError
from sdi_gs.pictures.images import save_contact_sheet
from sdi_gs.pictures.views import pictures, render_views, ring_cameras
from sdi_gs.runs.checkpoint import pack_state, save_checkpoint
from sdi_gs.runs.events import CheckpointSaved, Notice, Observer, PreviewSaved, ignore
from sdi_gs.runs.folder import SETTINGS_EVENT, RunFolder
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tree import config_to_dict
from sdi_gs.training.trainer import Trainer

KEPT = 2
"""Latest checkpoints that a run keeps."""
PREVIEW_VIEWS = 4
ELEVATION_DEG = 15.0
"""Height of the camera in previews, contact sheets and turntables."""


def save_state(trainer: Trainer, folder: RunFolder, *, emit: Observer = ignore, keep_all: bool = False) -> None:
    """Write a checkpoint of everything that the next step depends on.

    Earlier ones but the latest are removed, unless ``keep_all``: after a step that failed an earlier one may be needed.
    """
    tensors, state = pack_state(trainer.state())
    meta = {
        "state": state,
        "config": config_to_dict(trainer.config),
        "started_with": config_to_dict(trainer.started_with),
        "changes": trainer.changes,
    }
    if trainer.scene_name is not None:
        meta["scene"] = trainer.scene_name
    path = save_checkpoint(folder.checkpoints, trainer.step, tensors, meta, keep=None if keep_all else KEPT)
    emit(CheckpointSaved(step=trainer.step, path=path))


@contextmanager
def dispensable(what: str, *, emit: Observer, fix: str = "") -> Iterator[None]:
    """Emit a notice where a picture, a film or a count cannot be made; the run and its object do without it."""
    try:
        yield
    # What disks, encoders, memory and damaged files raise; other errors are faults of the program.
    except (UserError, OSError, MemoryError, RuntimeError, ValueError) as error:
        reason = "out of memory" if is_out_of_memory(error) else " ".join(str(error).split()) or type(error).__name__
        emit(Notice(text=f"{what} could not be made: {reason}{fix and f'; {fix}'}"))


def save_preview(trainer: Trainer, folder: RunFolder, *, emit: Observer = ignore) -> None:
    """Render front, sides and back into one picture; one of the same step from an earlier attempt is kept."""
    path = folder.preview(trainer.step)
    if path.exists():
        return
    with dispensable(f"the preview of step {trainer.step}", emit=emit):
        save_contact_sheet(path, ring_of_views(trainer, PREVIEW_VIEWS, trainer.prior.image_size))
        emit(PreviewSaved(step=trainer.step, path=path))


def change_settings(trainer: Trainer, folder: RunFolder, config: RunConfig) -> dict[str, list[Any]]:
    """Change the settings of a run that trains and log the change; return dotted name: [before, after].

    Raises UserError as ``Trainer.change_settings`` does.
    """
    changed = trainer.change_settings(config)
    log_change(folder, trainer.step, changed)
    return changed


def log_change(folder: RunFolder, step: int, changed: Mapping[str, list[Any]]) -> None:
    """Log what has changed after ``step``, if anything has."""
    if changed:
        after = {key: values[1] for key, values in changed.items()}
        folder.append_step({"event": SETTINGS_EVENT, "step": step, "changed": after})


def ring_of_views(trainer: Trainer, count: int, size: int) -> torch.Tensor:  # [count, size, size, 3]
    """Render the scene from ``count`` cameras on a ring."""
    cameras = ring_cameras(trainer.config.cameras, count, size, elevation_deg=ELEVATION_DEG)
    return render_views(trainer.scene.representation, cameras).rgb


def film_of_views(trainer: Trainer, count: int, size: int) -> Iterator[np.ndarray]:
    """Render the same views, displayable, part by part: those of a film are too many to be held."""
    cameras = ring_cameras(trainer.config.cameras, count, size, elevation_deg=ELEVATION_DEG)
    return pictures(trainer.scene.representation, cameras)
