"""Prepare a run, new or resumed: load the prior, build the trainer, make or open the folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sdi_gs.console import say
from sdi_gs.contracts import DiffusionPrior, Scene
from sdi_gs.contracts.prior_extras import NotedPrior
from sdi_gs.devices import is_out_of_memory
from sdi_gs.errors import UserError
from sdi_gs.files import disk_errors, is_there, refuse_used_folder
from sdi_gs.guidance.noise_sources.protocol import InfersNoise
from sdi_gs.pictures.turntable import find_ffmpeg
from sdi_gs.priors.catalog import load_prior
from sdi_gs.priors.tuning import require_graphs
from sdi_gs.priors.used_files import with_sums
from sdi_gs.representations.catalog import entry_of
from sdi_gs.representations.ngp.backends import configured_backend
from sdi_gs.runs.checkpoint import (
    Checkpoint,
    checkpoint_at,
    config_at_start,
    config_in_force,
    latest_checkpoint,
    load_checkpoint,
)
from sdi_gs.runs.checkpoint_contents import changes_of, state_of
from sdi_gs.runs.folder import RunFolder, create_run_folder, create_run_folder_at, load_run_config, open_run_folder
from sdi_gs.runs.kept_targets import latent_of, require_room
from sdi_gs.runs.loading import load_start, require_scene
from sdi_gs.runs.memory_to_start import require_memory
from sdi_gs.runs.resuming import require_steps_left
from sdi_gs.runs.saving import log_change, save_state
from sdi_gs.runs.writer_lock import only_writer
from sdi_gs.settings.run import RunConfig, require_prompt
from sdi_gs.settings.tree import config_to_dict, with_values
from sdi_gs.training.saved_rounds import require_latents
from sdi_gs.training.trainer import Trainer

OUTPUT_ROOT = Path("outputs")

LoadPrior = Callable[[RunConfig, torch.device], DiffusionPrior]
"""Returns the prior of a run's settings on a device, or raises UserError."""


def newly_loaded(config: RunConfig, device: torch.device) -> DiffusionPrior:
    """Load the prior of a run's settings (a ``LoadPrior``)."""
    return load_prior(config, device=device)


def prepare_run(
    config: RunConfig,
    *,
    device: torch.device | str = "cpu",
    folder: Path | str | None = None,
    scene: Scene | None = None,
    noise_source: InfersNoise | None = None,
    prior_for: LoadPrior = newly_loaded,
) -> tuple[Trainer, RunFolder]:
    """Load the prior, make the trainer, and last of all the run's folder, so that bad input leaves nothing behind.

    ``folder`` is the run's own folder, new or empty; None for the next free ``outputs/<slug>-<n>``.
    ``scene`` and ``noise_source`` are your own, used instead of the configured ones; ``prior_for`` may return a prior
    that an earlier run has loaded.
    Raises UserError for an empty prompt, for a prior that cannot be loaded or does not know the prompt's words, and for
    more kept targets than fit into memory.
    """
    require_runnable(config)
    device, folder = torch.device(device), None if folder is None else Path(folder)
    require_device(config, device)
    if folder is not None:
        refuse_used_folder(folder, "choose another --output-dir")
    if scene is None:
        require_memory(config, device=device)
    if scene is None and entry_of(config).needs_rasterizer:
        require_kernels(device)
    config = with_sums(config)
    with _memory_to_begin(device):
        start = load_start(config, device=device) if scene is None else None
        prior = _prior_of(config, device, prior_for)
        require_room(config, prior, device=device)
        trainer = Trainer(config, prior, device=device, scene=scene, noise_source=noise_source, start=start)
    run_folder = create_run_folder(OUTPUT_ROOT, config.prompt) if folder is None else create_run_folder_at(folder)
    run_folder.write_config(config_to_dict(config))
    return trainer, run_folder


def prepare_resume(
    path: Path | str,
    *,
    device: torch.device | str = "cpu",
    scene: Scene | None = None,
    noise_source: InfersNoise | None = None,
    at: int | None = None,
    folder: Path | str | None = None,
    changes: Mapping[str, Any] | None = None,
) -> tuple[Trainer, RunFolder]:
    """Load a run at its latest checkpoint, its state into ``scene`` if it is a run of a scene of your own.

    ``noise_source`` is the run's, if it is your own. ``changes`` are settings by dotted name that hold from the next
    step on, such as ``{"extend": 100}``. With ``at`` the run branches off at its checkpoint of that step, into a new
    folder: ``folder``, or the next free ``outputs/<slug>-<n>``.

    Raises UserError for a run that is finished or damaged, that another process writes to, or of another scene or
    noise source, for a setting that cannot change, and for any other path.
    """
    if at is None and folder is not None:
        raise ValueError("folder is for a run that branches off: give at too")
    stopped = open_run_folder(Path(path))
    with only_writer(stopped.path) if at is None else nullcontext():
        trainer, run_folder, _ = load_stopped(
            stopped.path,
            device=torch.device(device),
            scene=scene,
            noise_source=noise_source,
            at=at,
            folder=None if folder is None else Path(folder),
            changes=changes or {},
        )
    return trainer, run_folder


def load_stopped(
    path: Path,
    *,
    device: torch.device,
    scene: Scene | None,
    noise_source: InfersNoise | None,
    at: int | None,
    folder: Path | None,
    changes: Mapping[str, Any],
    prior_for: LoadPrior = newly_loaded,
) -> tuple[Trainer, RunFolder, dict[str, list[Any]]]:
    """Do what ``prepare_resume`` does, for a caller that holds the folder; return also what has changed."""
    stopped = open_run_folder(path)
    if folder is not None:
        refuse_used_folder(folder)
    config = load_run_config(path)
    with_sums(config)
    checkpoint = load_checkpoint(
        latest_checkpoint(stopped.checkpoints) if at is None else checkpoint_at(stopped.checkpoints, at)
    )
    require_scene(path, checkpoint, scene)
    in_force = config_in_force(checkpoint)
    wanted = with_values(in_force, changes)
    require_steps_left(stopped, checkpoint, wanted, branches_off=at is not None)
    if scene is None and entry_of(config).needs_rasterizer:
        require_kernels(device)
    _require_unedited(stopped, checkpoint, config)
    state, earlier = state_of(checkpoint), changes_of(checkpoint)
    with _memory_to_begin(device):
        prior = _prior_of(config, device, prior_for)
        require_room(wanted, prior, device=device, resumed=True)
        # With the ways of computing that are wanted: those of before may need what this machine does not have.
        begun = replace(in_force, compute=wanted.compute)
        trainer = Trainer(begun, prior, device=device, scene=scene, noise_source=noise_source, saved=state)
    trainer.config = in_force
    trainer.started_with = config
    require_latents(state, lambda: latent_of(prior, device))
    trainer.changes, num_changes = list(earlier), len(earlier)
    changed = trainer.change_settings(wanted)
    run_folder = stopped if at is None else _branch(stopped, config, at=at, folder=folder)
    run_folder.rewind_log(checkpoint.step, num_changes=num_changes)
    log_change(run_folder, trainer.step, changed)
    if changed or at is not None:
        # So that what was asked for once holds when the run is resumed again.
        save_state(trainer, run_folder, keep_all=True)
    return trainer, run_folder, changed


def _require_unedited(folder: RunFolder, checkpoint: Checkpoint, config: RunConfig) -> None:
    """Raise UserError unless a run's settings are those that its checkpoint was started with."""
    # What the run was started with; a run that was steered goes on with what was in force.
    # As configs and not as dicts: a run of an earlier version lacks the settings that came later.
    if config_at_start(checkpoint) != config:
        raise UserError(
            f"{folder.config} is not what the checkpoint of step {checkpoint.step} was trained with: "
            "restore the file, or start a new run"
        )


def _branch(source: RunFolder, config: RunConfig, *, at: int, folder: Path | None) -> RunFolder:
    """Make a new run folder with the settings, the log and the previews of another one up to a step."""
    made = create_run_folder(OUTPUT_ROOT, config.prompt) if folder is None else create_run_folder_at(folder)
    with disk_errors(made.path):
        if source.steps.exists():
            shutil.copyfile(source.steps, made.steps)
        for step, picture in source.saved_previews().items():
            if step <= at:
                shutil.copyfile(picture, made.preview(step))
    # Last, because a folder with settings is a run.
    made.write_config(config_to_dict(config))
    return made


def _prior_of(config: RunConfig, device: torch.device, prior_for: LoadPrior) -> DiffusionPrior:
    """Return the run's prior, and print what a user should know about how it was read."""
    prior = prior_for(config, device)
    for note in prior.notes if isinstance(prior, NotedPrior) else ():
        say(note)
    return prior


def require_kernels(device: torch.device) -> None:
    """On CUDA, compile gsplat unless that is done, with a line before it and a bar; elsewhere do nothing.

    Raises UserError if it cannot be compiled.
    """
    if device.type == "cuda":
        from sdi_gs.gsplat_build.build import ensure_built
        from sdi_gs.rasterize.gsplat_library import use_library

        ensure_built(use=lambda: use_library(device))


def require_runnable(config: RunConfig) -> None:
    """Raise UserError for settings that no run can begin with: no prompt, no such start, no ffmpeg for a film."""
    require_prompt(config)
    start = config.gaussians.init_from
    entry = entry_of(config)
    if entry.run_to_start_from is None and start is not None:
        raise UserError(
            f"{entry.noun} starts from nothing, not from {start}: leave --init-from out, or train gaussians"
        )
    if start is not None and not is_there(Path(start)):
        raise UserError(f"cannot start from {start}: there is no such file or run; check --init-from")
    if config.outputs.turntable_frames:
        # Now rather than after the last step.
        try:
            find_ffmpeg()
        except UserError as error:
            raise UserError(f"{error}, or do without: --outputs.turntable-frames 0") from error


def require_device(config: RunConfig, device: torch.device) -> None:
    """Raise UserError for ways of computing that a device does not have."""
    if config.compute.cuda_graphs:
        require_graphs(device)
    if entry_of(config).casts_rays:
        configured_backend(config.compute.field_kernels, device)


@contextmanager
def _memory_to_begin(device: torch.device) -> Iterator[None]:
    """Raise UserError in place of torch's error if networks and scene do not fit the device."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"{device} has too little free memory to load the networks and the scene: close other programs, choose "
            "another --device, or use --device cpu --prior toybox-ideal"
        ) from error
