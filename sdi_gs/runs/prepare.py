"""Prepare a run, new or resumed: load the prior, build the trainer, make or open the folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from sdi_gs.contracts import Scene
from sdi_gs.errors import UserError
from sdi_gs.guidance.noise_sources.protocol import InfersNoise
from sdi_gs.pictures.turntable import find_ffmpeg
from sdi_gs.priors.catalog import load_prior
from sdi_gs.representations.catalog import entry_of
from sdi_gs.runs.checkpoint import config_in_force, latest_checkpoint, load_checkpoint, unpack_state
from sdi_gs.runs.finish import read_summary
from sdi_gs.runs.folder import RunFolder, create_run_folder, create_run_folder_at, load_run_config, open_run_folder
from sdi_gs.runs.kept_targets import require_room
from sdi_gs.runs.loading import load_start, require_scene
from sdi_gs.settings.run import RunConfig, require_prompt
from sdi_gs.settings.tree import config_from_dict, config_to_dict
from sdi_gs.training.trainer import Trainer

OUTPUT_ROOT = Path("outputs")


def prepare_run(
    config: RunConfig,
    *,
    device: torch.device | str = "cpu",
    folder: Path | str | None = None,
    scene: Scene | None = None,
    noise_source: InfersNoise | None = None,
) -> tuple[Trainer, RunFolder]:
    """Load the prior, make the trainer, and last of all the run's folder, so that bad input leaves nothing behind.

    ``folder`` is the run's own folder, which must not exist; None for the next free ``outputs/<slug>-<n>``.
    ``scene`` and ``noise_source`` are your own, used instead of the configured ones.
    Raises UserError for an empty prompt, for a prior that cannot be loaded or does not know the prompt's words, and for
    more kept targets than fit into memory.
    """
    _require_runnable(config)
    device, folder = torch.device(device), None if folder is None else Path(folder)
    if folder is not None and folder.exists():
        raise UserError(f"{folder} exists and is never overwritten: choose another --output-dir")
    if scene is None and entry_of(config).needs_rasterizer:
        require_kernels(device)
    with _memory_to_begin(device):
        start = load_start(config, device=device) if scene is None else None
        prior = load_prior(config, device=device)
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
) -> tuple[Trainer, RunFolder]:
    """Load a run at its latest checkpoint, its state into ``scene`` if it is a run of a scene of your own.

    ``noise_source`` is the run's, if it is your own. Raises UserError for a run that is finished or damaged, or of
    another scene or noise source, and for any other path.
    """
    path, device = Path(path), torch.device(device)
    folder = open_run_folder(path)
    config = load_run_config(path)
    checkpoint = load_checkpoint(latest_checkpoint(folder.checkpoints))
    require_scene(path, checkpoint, scene)
    summary = read_summary(folder)
    if summary is not None and summary.get("step") == config.steps:
        raise UserError(f"{path} is finished ({config.steps} of {config.steps} steps); there is nothing to resume")
    if scene is None and entry_of(config).needs_rasterizer:
        require_kernels(device)
    # What the run was started with; a run that was steered goes on with what was in force.
    started_with = checkpoint.meta.get("started_with", checkpoint.meta.get("config"))
    # As configs and not as dicts: a run of an earlier version lacks the settings that came later.
    if not isinstance(started_with, dict) or config_from_dict(started_with) != config:
        raise UserError(
            f"{folder.config} is not what the checkpoint of step {checkpoint.step} was trained with: "
            "restore the file, or start a new run"
        )
    state = unpack_state(checkpoint.tensors, checkpoint.meta["state"])
    with _memory_to_begin(device):
        prior = load_prior(config, device=device)
        in_force = config_in_force(checkpoint)
        require_room(in_force, prior, device=device, resumed=True)
        trainer = Trainer(in_force, prior, device=device, scene=scene, noise_source=noise_source, saved=state)
    trainer.started_with = config
    trainer.changes = checkpoint.meta.get("changes", [])  # pyright: ignore[reportAttributeAccessIssue]
    folder.rewind_log(checkpoint.step, num_changes=len(trainer.changes))
    return trainer, folder


def require_kernels(device: torch.device) -> None:
    """On CUDA, compile gsplat unless that is done, with a line before it and a bar; elsewhere do nothing.

    Raises UserError if it cannot be compiled.
    """
    if device.type == "cuda":
        from sdi_gs.gsplat_build.build import ensure_built
        from sdi_gs.rasterize.gsplat_library import use_library

        ensure_built(use=lambda: use_library(device))


def _require_runnable(config: RunConfig) -> None:
    require_prompt(config)
    start = config.gaussians.init_from
    entry = entry_of(config)
    if entry.run_to_start_from is None and start is not None:
        raise UserError(
            f"{entry.noun} starts from nothing, not from {start}: leave --init-from out, or train gaussians"
        )
    if start is not None and not Path(start).exists():
        raise UserError(f"cannot start from {start}: there is no such file or run; check --init-from")
    if config.outputs.turntable_frames:
        # Now rather than after the last step.
        try:
            find_ffmpeg()
        except UserError as error:
            raise UserError(f"{error}, or do without: --outputs.turntable-frames 0") from error


@contextmanager
def _memory_to_begin(device: torch.device) -> Iterator[None]:
    """Raise UserError in place of torch's error if networks and scene do not fit the card."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"{device} has too little free memory to load the networks and the scene: close other programs, choose "
            "another --device, or use --device cpu --prior toybox-ideal"
        ) from error
