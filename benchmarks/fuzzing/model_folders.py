"""Folders of models in Stable Diffusion's layout with wrong configs, wrong weights, damaged bytes or missing files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load, save
from tiny_pipeline import SCHEDULERS, write_model

from fuzzing.mutations import damaged_bytes
from fuzzing.saved_states import damage_json, damage_tensors
from fuzzing.splat_commands import SHORT_RUN
from fuzzing.targets import Case, Target

_CONFIGS = (
    *("scheduler/scheduler_config.json", "unet/config.json", "vae/config.json", "text_encoder/config.json"),
    *("scheduler/scheduler_config.json", "unet/config.json", "vae/config.json", "text_encoder/config.json"),
    *("tokenizer/tokenizer_config.json", "tokenizer/special_tokens_map.json", "tokenizer/vocab.json"),
    "model_index.json",
)


def good_folders(folder: Path) -> list[Path]:
    """Write a folder for each type of prediction; those that are in ``folder`` are kept."""
    folders = []
    for name, scheduler in SCHEDULERS.items():
        if not (folder / name).exists():
            shutil.rmtree(folder / "unfinished", ignore_errors=True)
            write_model(folder / "unfinished", scheduler)
            (folder / "unfinished").rename(folder / name)
        folders.append(folder / name)
    return folders


def wrong_folder(good: Sequence[Path], rng: np.random.Generator, folder: Path) -> Case:
    """Write a folder with one to three changes."""
    model, about = shutil.copytree(good[int(rng.integers(len(good)))], folder / "model"), []
    for _ in range(1 if rng.random() < 0.7 else int(rng.integers(2, 4))):
        about.append(_change(model, rng))
    return Case(arguments=_command(rng), about=", ".join(about))


def _change(model: Path, rng: np.random.Generator) -> str:
    files = sorted(str(file.relative_to(model)) for file in model.rglob("*") if file.is_file())
    weights = [name for name in files if name.endswith(".safetensors")]
    how = rng.random()
    name = _CONFIGS[rng.integers(len(_CONFIGS))] if how < 0.6 else files[rng.integers(len(files))]
    try:
        if how < 0.6:
            tree = json.loads((model / name).read_text())
            done = damage_json(tree, rng)
            (model / name).write_text(json.dumps(tree))
        elif how < 0.8 and weights:
            name = weights[rng.integers(len(weights))]
            tensors = load((model / name).read_bytes())
            done = damage_tensors(tensors, rng)
            data = save({key: tensor.contiguous().clone() for key, tensor in tensors.items()})
            (model / name).write_bytes(data)
        elif how < 0.95:
            (model / name).write_bytes(damaged_bytes((model / name).read_bytes(), rng))
            done = "bytes"
        else:
            (model / name).unlink()
            done = "gone"
    except (OSError, ValueError, SafetensorError) as error:
        # An earlier change of the same file may have left nothing to change.
        done = type(error).__name__
    return f"{name}: {done}"


def _command(rng: np.random.Generator) -> Sequence[str]:
    train = (*SHORT_RUN, "--prior", "model", "--steps", "1", "--output-dir", "run", "--compute.precision", "float32")
    commands: tuple[tuple[float, Sequence[str]], ...] = (
        (0.6, train),
        (0.2, ("priors", "check", "model")),
        (0.1, ("priors", "list", "model")),
        (0.05, ("priors", "fetch", "model")),
        (0.05, (*train, "--dry-run")),
    )
    return commands[rng.choice(len(commands), p=[weight for weight, _ in commands])][1]


TARGET = Target(prepare=good_folders, case=wrong_folder, quick=16)
