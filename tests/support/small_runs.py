"""Runs of eight steps, whole, stopped and crashed, for the tests of runs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sdi_gs.configs.presets import preset_named
from sdi_gs.runs.checkpoint import list_checkpoints, load_checkpoint
from sdi_gs.runs.finish import finish
from sdi_gs.runs.folder import RunFolder
from sdi_gs.runs.loop import train
from sdi_gs.runs.prepare import prepare_run
from sdi_gs.settings.outputs import OutputConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.training.trainer import Trainer

CPU = torch.device("cpu")
BYTES_THAT_REPEAT = ("splats.ply", "turntable.mp4", "contact_sheet.png", "config.yaml")


def config(**changes: Any) -> RunConfig:
    """Return the settings of a run of eight steps that covers every stage, densification included."""
    base = preset_named("smoke").config
    small = replace(
        base,
        prompt="a blue robot",
        steps=8,
        gaussians=replace(base.gaussians, num_initial=150),
        densify=replace(base.densify, enabled=True, start=0.0, stop=1.0, every=3, max_gaussians=200, min_gaussians=50),
        ideal_prior=replace(base.ideal_prior, renders_per_view=8, unconditional_renders=16),
        outputs=OutputConfig(preview_every=4, checkpoint_every=3, turntable_frames=2, turntable_size=32),
    )
    return replace(small, **changes)


def start(folder: Path, settings: RunConfig | None = None) -> tuple[Trainer, RunFolder]:
    return prepare_run(settings or config(), device=CPU, folder=folder)


def whole_run(folder: Path, settings: RunConfig | None = None) -> RunFolder:
    trainer, run_folder = start(folder, settings)
    assert train(trainer, run_folder)
    finish(trainer, run_folder, started=time.perf_counter())
    return run_folder


def stopped_run(folder: Path, steps: int) -> RunFolder:
    """Start a run, stop it after some steps, and save and export its results."""
    trainer, run_folder = start(folder)
    assert not train(trainer, run_folder, should_stop=lambda: trainer.step >= steps)
    finish(trainer, run_folder, started=time.perf_counter())
    return run_folder


def crashed_run(folder: Path, steps: int) -> RunFolder:
    """Start a run and abandon it after some steps, without saving or exporting."""
    trainer, run_folder = start(folder)
    train(trainer, run_folder, should_stop=lambda: trainer.step >= steps)
    return run_folder


def assert_same_results(left: RunFolder, right: RunFolder, names: Sequence[str] = BYTES_THAT_REPEAT) -> None:
    for name in names:
        assert (left.path / name).read_bytes() == (right.path / name).read_bytes(), name
    assert [timeless(record) for record in left.read_steps()] == [timeless(record) for record in right.read_steps()]
    tensors, others = (load_checkpoint(list_checkpoints(run.checkpoints)[-1]).tensors for run in (left, right))
    assert set(tensors) == set(others)
    assert [name for name, value in tensors.items() if not torch.equal(value, others[name])] == []


def without_its_end(run: Path, copy: Path) -> Path:
    """Copy a finished run, but for its last checkpoint and what it left at its end; return the copy."""
    shutil.copytree(run, copy)
    shutil.rmtree(list_checkpoints(copy / "checkpoints")[-1])
    for path in [*copy.glob("*.p*"), *copy.glob("*.mp4"), *copy.glob("*.json")]:
        path.unlink()
    return copy


def timeless(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != "seconds"}
