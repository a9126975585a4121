"""Checkpoints of runs whose checksums are right and whose contents are not, and damaged ones."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.torch import load, save

from fuzzing.mutations import damaged_bytes
from fuzzing.saved_states import damage_json, damage_tensors
from fuzzing.splat_commands import SHORT_RUN
from fuzzing.targets import Case, Target

_STEP = "checkpoints/step_000003"
_RUN = (
    *(*SHORT_RUN, "--steps", "4", "--outputs.checkpoint-every", "3", "--gaussians.num-initial", "60"),
    *("--densify.min-gaussians", "20", "--ideal-prior.image-size", "32"),
)
_KINDS: dict[str, Sequence[str]] = {
    "gaussians": ("--replay.steps-per-target", "2", "--replay.views", "8", "--noise", "fixed-random"),
    "field": ("--representation", "ngp"),
    "mcmc": ("--densify.strategy", "mcmc", "--densify.start", "0.0", "--densify.every", "2", "--noise", "cached"),
}
"""Options of the runs: growth, optimisers, kept targets and kept noise of every sort."""
# A run that is extended keeps what it was asked in its latest checkpoint.
_MAY_CHANGE = (
    *("run/steps.jsonl", "run/.writer", "run/config.yaml", "run/summary.json"),
    *(f"run/{_STEP}/checkpoint.json", f"run/{_STEP}/tensors.safetensors"),
)
"""Files that a run that goes on writes anew."""
_MAY_GROW = ("run/steps.jsonl",)
"""Files that also a run that fails in a later step has written to."""


def good_runs(folder: Path) -> dict[str, Path]:
    """Train a run of each kind, stopped after its third of four steps; runs that are in ``folder`` are kept."""
    from sdi_gs.commands.main import main

    runs = {kind: folder / kind for kind in _KINDS}
    for kind, run in runs.items():
        if not run.exists():
            made = folder / f"{kind}-unfinished"
            shutil.rmtree(made, ignore_errors=True)
            code = main([*_RUN, *_KINDS[kind], "--output-dir", str(made)])
            if code:
                raise RuntimeError(f"the run of {kind} ended with {code}")
            for name in ("checkpoints/step_000004", "previews"):
                shutil.rmtree(made / name, ignore_errors=True)
            for name in ("splats.ply", "contact_sheet.png", "summary.json"):
                (made / name).unlink(missing_ok=True)
            # What a resume would take out of the log anyway.
            log = made / "steps.jsonl"
            log.write_text("".join(log.read_text().splitlines(keepends=True)[:3]))
            made.rename(run)
    return runs


def wrong_run(good: dict[str, Path], rng: np.random.Generator, folder: Path) -> Case:
    """Write a run whose checkpoint has other contents, or damaged bytes, or lacks a file."""
    kind = list(good)[rng.integers(len(good))]
    shutil.copytree(good[kind], folder / "run")
    checkpoint, about = folder / "run" / _STEP, [kind]
    if rng.random() < 0.8:
        about += _rewrite(checkpoint, rng)
    if rng.random() < 0.2:
        names = (f"{_STEP}/checkpoint.json", f"{_STEP}/tensors.safetensors", "steps.jsonl", "config.yaml")
        file = folder / "run" / names[rng.integers(len(names))]
        about.append(file.name)
        if rng.random() < 0.1:
            file.unlink()
        elif file.name == "steps.jsonl" and rng.random() < 0.6:
            lines = [json.loads(line) for line in file.read_text().splitlines()]
            about.append(damage_json(lines[rng.integers(len(lines))], rng))
            file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        else:
            file.write_bytes(damaged_bytes(file.read_bytes(), rng))
    return Case(arguments=_command(rng), about=", ".join(about), may_change=_MAY_CHANGE, may_grow=_MAY_GROW)


def _command(rng: np.random.Generator) -> Sequence[str]:
    commands: tuple[Sequence[str], ...] = (
        ("train", "--resume", "run", "--device", "cpu"),
        ("train", "--resume", "run", "--device", "cpu"),
        ("train", "--resume", "run", "--device", "cpu", "--extend", "1"),
        ("train", "--resume", "run", "--at", "3", "--output-dir", "other", "--device", "cpu"),
        (*SHORT_RUN, "--steps", "1", "--output-dir", "other", "--init-from", "run"),
        ("export", "run", "--format", "splat", "--out", "out.splat", "--fit-steps", "2"),
        ("export", "run", "--format", "glb", "--out", "out.glb", "--mesh.resolution", "16"),
        ("render", "run", "--size", "32", "--frames", "0", "--views", "2", "--device", "cpu", "--out", "pictures"),
    )
    return commands[rng.integers(len(commands))]


def _rewrite(checkpoint: Path, rng: np.random.Generator) -> list[str]:
    """Change the contents of a checkpoint and write the checksums of what is there then; return what was done."""
    header = json.loads((checkpoint / "checkpoint.json").read_text())
    tensors = load((checkpoint / "tensors.safetensors").read_bytes())
    about = []
    for _ in range((1, 1, 1, 2, 4)[rng.integers(5)]):
        about.append(damage_json(header["meta"], rng) if rng.random() < 0.5 else damage_tensors(tensors, rng))
    data = save({name: tensor.contiguous().clone() for name, tensor in tensors.items()})
    (checkpoint / "tensors.safetensors").write_bytes(data)
    header["tensors_sha256"] = hashlib.sha256(data).hexdigest()
    header["meta_sha256"] = hashlib.sha256(json.dumps(header["meta"], sort_keys=True).encode()).hexdigest()
    (checkpoint / "checkpoint.json").write_text(json.dumps(header))
    return about


TARGET = Target(prepare=good_runs, case=wrong_run, quick=16)
