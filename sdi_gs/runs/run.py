"""A run from its first step to its files, and the continuation of one that was stopped.

Nothing that a run wrote is overwritten: the results of an earlier stop are renamed, not replaced.
"""

from __future__ import annotations

import json
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from sdi_gs import __version__
from sdi_gs.contracts import DiffusionPrior, StepReport
from sdi_gs.errors import NonFiniteError, UserError
from sdi_gs.pictures.images import save_contact_sheet
from sdi_gs.pictures.turntable import find_ffmpeg, save_turntable
from sdi_gs.pictures.views import render_views, ring_cameras
from sdi_gs.priors.catalog import is_instrument, load_prior
from sdi_gs.representations.gaussians import Gaussians
from sdi_gs.representations.splat_conversion import splat_cloud
from sdi_gs.runs.checkpoint import (
    config_in_force,
    latest_checkpoint,
    load_checkpoint,
    pack_state,
    save_checkpoint,
    unpack_state,
)
from sdi_gs.runs.folder import (
    SETTINGS_EVENT,
    RunFolder,
    create_run_folder,
    create_run_folder_at,
    open_run_folder,
)
from sdi_gs.settings.run import RunConfig, config_from_dict, config_to_dict, require_prompt
from sdi_gs.settings.tiers import Tier, next_lower, saving_at_least
from sdi_gs.splats.ply import write_splat_ply
from sdi_gs.training.trainer import Trainer

Observer = Callable[[Trainer, StepReport], None]

OUTPUT_ROOT = Path("outputs")
PREVIEW_VIEWS = 4
SHEET_VIEWS = 8
TURNTABLE_ELEVATION_DEG = 15.0


def prepare_run(config: RunConfig, *, device: torch.device, folder: Path | None) -> tuple[Trainer, RunFolder]:
    """Build everything a run needs, then make its folder, so that bad input leaves nothing behind.

    ``folder`` is the run's own folder, which must not exist; None for the next free ``outputs/<slug>-<n>``.
    Raises ``UserError`` for an empty prompt, a prior that cannot be had or does not know the prompt's words.
    """
    _require_runnable(config)
    if folder is not None and folder.exists():
        raise UserError(f"{folder} exists and is never overwritten: choose another --output-dir")
    if config.representation == "gaussians":
        require_kernels(device)
    with _memory_to_begin(device):
        trainer = Trainer(config, _prior_of(config, device), device=device)
    run_folder = create_run_folder(OUTPUT_ROOT, config.prompt) if folder is None else create_run_folder_at(folder)
    run_folder.write_config(config_to_dict(config))
    return trainer, run_folder


def require_kernels(device: torch.device) -> None:
    """On CUDA, compile gsplat where that was not done yet, with one line before it and a bar; else nothing.

    Raises UserError where it cannot be compiled, before anything is loaded.
    """
    if device.type == "cuda":
        from sdi_gs.gsplat_build.build import ensure_built
        from sdi_gs.rasterize.gsplat_library import use_library

        ensure_built(use=lambda: use_library(device))


def load_run_config(path: Path) -> RunConfig:
    """The settings that a run folder was made with."""
    return config_from_dict(open_run_folder(path).read_config())


def prepare_resume(path: Path, *, device: torch.device) -> tuple[Trainer, RunFolder]:
    """Load a run at its latest checkpoint; raises ``UserError`` where it is finished, damaged or no run."""
    folder = open_run_folder(path)
    config = load_run_config(path)
    checkpoint = load_checkpoint(latest_checkpoint(folder.checkpoints))
    summary = read_summary(folder)
    if summary is not None and summary.get("step") == config.steps:
        raise UserError(f"{path} is finished ({config.steps} of {config.steps} steps); there is nothing to resume")
    if config.representation == "gaussians":
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
        trainer = Trainer(config_in_force(checkpoint), _prior_of(config, device), device=device, saved=state)
    trainer.started_with = config
    trainer.changes = checkpoint.meta.get("changes", [])  # pyright: ignore[reportAttributeAccessIssue]
    folder.rewind_log(checkpoint.step, num_changes=len(trainer.changes))
    return trainer, folder


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
    rays = config.views_per_step * trainer.prior.image_size**2 if config.representation == "ngp" else 0
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


def change_settings(trainer: Trainer, folder: RunFolder, config: RunConfig) -> dict[str, list[Any]]:
    """Steer a run that trains, and write to its log what changed (as ``Trainer.change_settings``, UserError too)."""
    changed = trainer.change_settings(config)
    if changed:
        after = {key: values[1] for key, values in changed.items()}
        folder.append_step({"event": SETTINGS_EVENT, "step": trainer.step, "changed": after})
    return changed


def save_state(trainer: Trainer, folder: RunFolder) -> None:
    """A checkpoint of all that the next step depends on."""
    tensors, state = pack_state(trainer.state())
    meta = {
        "state": state,
        "config": config_to_dict(trainer.config),
        "started_with": config_to_dict(trainer.started_with),
        "changes": trainer.changes,
    }
    save_checkpoint(folder.checkpoints, trainer.step, tensors, meta)


def save_preview(trainer: Trainer, folder: RunFolder) -> None:
    """Front, sides and back as they are now; a picture of the same step from an earlier try stays."""
    path = folder.preview(trainer.step)
    if not path.exists():
        save_contact_sheet(path, _ring_of_views(trainer, PREVIEW_VIEWS, trainer.prior.image_size))


def finish(trainer: Trainer, folder: RunFolder, *, started: float) -> dict[str, Any]:
    """Save, export and summarise; ``started`` is the ``time.perf_counter()`` of the command's start.

    Results of an earlier stop of the same run are kept as ``<name>_stop_<n>``.
    """
    config = trainer.config
    if trainer.step >= config.steps:
        trainer.scene.finalize()
    save_state(trainer, folder)
    _set_aside_results(folder)
    shown, exported = trainer.scene.representation, 0
    if isinstance(shown, Gaussians):
        comments = ply_comments(config, trainer.step)
        exported = write_splat_ply(folder.splats, splat_cloud(shown), comments=comments).written
    size, frames = config.outputs.turntable_size, config.outputs.turntable_frames
    labels = [f"{360 * index // SHEET_VIEWS} deg" for index in range(SHEET_VIEWS)]
    save_contact_sheet(folder.contact_sheet, _ring_of_views(trainer, SHEET_VIEWS, size), columns=4, labels=labels)
    if frames:
        save_turntable(folder.turntable, _ring_of_views(trainer, frames, size))
    steps = folder.read_steps()
    summary = {
        "prompt": config.prompt,
        "prior": config.prior,
        "prior_is_an_instrument": is_instrument(config.prior),
        "step": trainer.step,
        "steps": config.steps,
        "seed": config.seed,
        "representation": config.representation,
        "n_gaussians": trainer.scene.num_gaussians,
        "n_exported": exported,
        "predictor_calls": sum(record["predictor_calls"] for record in steps),
        "train_seconds": sum(record["seconds"] for record in steps),
        "wall_seconds": time.perf_counter() - started,
        "peak_rss_mb": peak_rss_mb(),
        "device": str(trainer.device),
        "versions": versions(),
        "config": config_to_dict(config),
        "changes": trainer.changes,
    }
    folder.write_summary(summary)
    return summary


def read_summary(folder: RunFolder) -> dict[str, Any] | None:
    """What ``finish`` wrote; None where a run has not come to it, or where the file is damaged."""
    try:
        summary = json.loads(folder.summary.read_bytes())
    except (OSError, ValueError):
        return None
    return summary if isinstance(summary, dict) else None


def ply_comments(config: RunConfig, step: int) -> list[str]:
    """What a splat file says of its origin."""
    return [
        f"sdi-gs {__version__}",
        f"prompt {config.prompt}",
        f"prior {config.prior}",
        f"seed {config.seed} steps {step}",
    ]


def peak_rss_mb() -> float:
    """The most memory that this process has held, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def versions() -> dict[str, str]:
    """Versions of Python, of this project and of the packages that decide a result, or "missing"."""
    names = ("torch", "gsplat", "numba", "numpy", "diffusers", "transformers", "viser", "tyro", "plyfile")
    return {"python": platform.python_version(), "sdi-gs": __version__} | {name: _version(name) for name in names}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        # A report of what is wrong here must not end because of it.
        return "missing"


def _require_runnable(config: RunConfig) -> None:
    require_prompt(config)
    start = config.gaussians.init_from
    if config.representation == "ngp" and start is not None:
        raise UserError(f"a field starts from nothing, not from {start}: leave --init-from out, or train gaussians")
    if start is not None and not Path(start).exists():
        raise UserError(f"cannot start from {start}: there is no such file or run; check --init-from")
    if config.outputs.turntable_frames:
        # Now, and not after the last step.
        try:
            find_ffmpeg()
        except UserError as error:
            raise UserError(f"{error}, or do without: --outputs.turntable-frames 0") from error


@contextmanager
def _memory_to_begin(device: torch.device) -> Iterator[None]:
    """Raises UserError in place of torch's error where not even the networks and the scene fit the card."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"{device} has too little free memory to load the networks and the scene: close other programs, choose "
            "another --device, or use --device cpu --prior toybox-ideal"
        ) from error


def _prior_of(config: RunConfig, device: torch.device) -> DiffusionPrior:
    """The run's prior in its precision; the published form of SDI tells it a clean latent's negative source time."""
    published = config.guidance.renoise == "reference"
    precision = config.compute.precision
    return load_prior(
        config.prior,
        config.ideal_prior,
        device=device,
        dtype=None if precision == "auto" else getattr(torch, precision),
        published_source_time=published,
    )


def _log_line(report: StepReport) -> dict[str, Any]:
    return {
        "step": report.step,
        "t": report.timestep,
        "loss": sum(report.losses.values()),
        "losses": report.losses,
        "n_gaussians": report.num_gaussians,
        "predictor_calls": report.predictor_calls,
        "seconds": report.seconds,
    }


def _set_aside_results(folder: RunFolder) -> None:
    """Rename what an earlier, stopped part of the run exported."""
    results = (folder.summary, folder.splats, folder.turntable, folder.contact_sheet)
    number = 1
    while any(folder.path.glob(f"*_stop_{number}.*")):
        number += 1
    for path in results:
        if path.exists():
            path.rename(path.with_name(f"{path.stem}_stop_{number}{path.suffix}"))


def _ring_of_views(trainer: Trainer, count: int, size: int) -> torch.Tensor:  # [count, size, size, 3]
    cameras = ring_cameras(trainer.config.cameras, count, size, elevation_deg=TURNTABLE_ELEVATION_DEG)
    return render_views(trainer.scene.representation, cameras).rgb
