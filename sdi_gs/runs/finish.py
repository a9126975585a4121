"""The end of a run: its last checkpoint, its exports and its summary.

Nothing that a run wrote is overwritten: the results of an earlier stop are renamed, not replaced.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sdi_gs.files import disk_errors, first_free_number
from sdi_gs.mesh.formats import MeshFormat
from sdi_gs.pictures.images import save_contact_sheet
from sdi_gs.pictures.turntable import save_turntable
from sdi_gs.priors.catalog import is_instrument
from sdi_gs.priors.used_files import as_records
from sdi_gs.runs.events import Finished, Notice, Observer, Saving, ignore
from sdi_gs.runs.export import Exporter, ending_of
from sdi_gs.runs.export_formats import ExportFormat, export_formats
from sdi_gs.runs.folder import RunFolder
from sdi_gs.runs.loading import RunOrigin, SavedScene
from sdi_gs.runs.provenance import origin_of, peak_rss_mb, versions
from sdi_gs.runs.saving import dispensable, film_of_views, ring_of_views, save_state
from sdi_gs.settings.tree import config_to_dict
from sdi_gs.splats.ply import write_splat_ply
from sdi_gs.training.trainer import Trainer

SHEET_VIEWS = 8
LARGEST_COUNT = 1e15
"""Seconds or calls of a step that no run has."""


def finish(
    trainer: Trainer,
    folder: RunFolder,
    *,
    started: float,
    emit: Observer = ignore,
    exports: Sequence[ExportFormat] = (),
) -> dict[str, Any]:
    """Save, export and write the summary, which is returned.

    ``exports`` are formats to write besides the .ply. ``started`` is the ``time.perf_counter()`` from which
    ``wall_seconds`` counts. Results of an earlier stop of the same run are kept as ``<name>_stop_<n>``. Emits Saving,
    CheckpointSaved and Finished, and a Notice for an export, a picture, a film or a summary that cannot be made:
    without the checkpoint or the splats alone it raises UserError.
    """
    config, is_complete = trainer.config, trainer.step >= trainer.config.total_steps
    emit(Saving(step=trainer.step))
    if is_complete:
        trainer.scene.finalize()
    save_state(trainer, folder, emit=emit)
    _set_aside_results(folder)
    splats, exported = trainer.scene.representation.splats(), 0
    if splats is not None:
        comments = origin_of(config, trainer.step).lines()
        exported = write_splat_ply(folder.splats, splats.cpu(), comments=comments).written
    _export(trainer, folder, exports, emit=emit)
    _save_pictures(trainer, folder, emit=emit)
    steps: list[dict[str, Any]] = []
    with dispensable("the summary's counts of calls and seconds", emit=emit):
        steps = folder.read_steps()
    summary = {
        "prompt": config.prompt,
        "prior": config.prior,
        "prior_files": as_records(config),
        "prior_is_an_instrument": is_instrument(config.prior),
        "step": trainer.step,
        "steps": config.total_steps,
        "rounds": trainer.num_rounds,
        "seed": config.seed,
        "representation": trainer.scene_name or config.representation,
        "n_gaussians": trainer.scene.representation.num_points,
        "n_exported": exported,
        "predictor_calls": int(_total(steps, "predictor_calls")),
        "train_seconds": _total(steps, "seconds"),
        "wall_seconds": time.perf_counter() - started,
        "peak_rss_mb": peak_rss_mb(),
        "device": str(trainer.device),
        "versions": versions(),
        "config": config_to_dict(config),
        "changes": trainer.changes,
    }
    if trainer.noise_source_name is not None:
        summary["noise_source"] = trainer.noise_source_name
    with dispensable("the summary", emit=emit):
        folder.write_summary(summary)
    files = tuple(path for path in result_files(folder) if path.exists())
    made = f"{exported} Gaussians" if splats is not None else trainer.scene.representation.describe()
    emit(Finished(folder=folder.path, files=files, made=made, summary=summary, complete=is_complete))
    return summary


def _total(steps: Sequence[Mapping[str, Any]], key: str) -> float:
    """Return the sum of a number of the log's steps; lines of a log that was edited may hold anything."""
    values = (step.get(key, 0) for step in steps)
    return sum(value for value in values if isinstance(value, int | float) and 0 <= value < LARGEST_COUNT)


def _save_pictures(trainer: Trainer, folder: RunFolder, *, emit: Observer) -> None:
    size, frames = trainer.config.outputs.turntable_size, trainer.config.outputs.turntable_frames
    labels = [f"{360 * index // SHEET_VIEWS} deg" for index in range(SHEET_VIEWS)]
    later = f"make pictures later with: sdi-gs render {shlex.quote(str(folder.path))}"
    with dispensable("the contact sheet", emit=emit, fix=later):
        save_contact_sheet(folder.contact_sheet, ring_of_views(trainer, SHEET_VIEWS, size), columns=4, labels=labels)
    with dispensable("the film", emit=emit, fix=later):
        if frames:
            save_turntable(folder.turntable, film_of_views(trainer, frames, size))


def result_files(folder: RunFolder) -> tuple[Path, ...]:
    """Return the paths of all that ``finish`` can write besides the checkpoint."""
    exported = [exported_path(folder, row) for row in export_formats()]
    files = (folder.splats, *exported, folder.turntable, folder.contact_sheet, folder.summary)
    return tuple(dict.fromkeys(files))


def exported_path(folder: RunFolder, row: ExportFormat) -> Path:
    """Return where ``finish`` writes a format: ``splats.spz``, ``mesh.glb``."""
    return folder.path / f"{'mesh' if isinstance(row, MeshFormat) else 'splats'}{ending_of(row)}"


def _export(trainer: Trainer, folder: RunFolder, rows: Sequence[ExportFormat], *, emit: Observer) -> None:
    name = trainer.scene_name or trainer.config.representation
    run = RunOrigin(folder=folder, config=trainer.config, step=trainer.step, representation=name)
    exporter = Exporter(SavedScene(representation=trainer.scene.representation, path=folder.path, run=run))
    for row in rows:
        path = exported_path(folder, row)
        if path == folder.splats and path.exists():
            # Every run of splats writes it.
            continue
        later = f"write it later with: sdi-gs export {shlex.quote(str(folder.path))} --format {row.name}"
        with dispensable(path.name, emit=emit, fix=later):
            remark = exporter.write(path, row).remark
            if remark is not None:
                emit(Notice(text=f"{path.name}: {remark}"))


def read_summary(folder: RunFolder) -> dict[str, Any] | None:
    """Return what ``finish`` wrote; None for a run that has not finished, or a damaged file."""
    try:
        summary = json.loads(folder.summary.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return summary if isinstance(summary, dict) else None


def _set_aside_results(folder: RunFolder) -> None:
    """Rename the results of an earlier, stopped part of the run."""
    number = first_free_number(lambda number: any(folder.path.glob(f"*_stop_{number}.*")))
    with disk_errors(folder.path):
        for path in result_files(folder):
            if path.exists():
                path.rename(path.with_name(f"{path.stem}_stop_{number}{path.suffix}"))
