"""The folder layout of Stable Diffusion 2.1: the files of a model, and checks for missing ones."""

from __future__ import annotations

import re
from collections.abc import Collection
from fnmatch import fnmatch
from pathlib import Path

from sdi_gs.errors import UserError

CONFIG_FILES = {
    "tokenizer": ("tokenizer.json", "vocab.json"),
    "text_encoder": ("config.json",),
    "unet": ("config.json",),
    "vae": ("config.json",),
    "scheduler": ("scheduler_config.json",),
}
"""Components of the layout, each with alternative files of which one must exist."""

NETWORKS = ("text_encoder", "unet", "vae")
"""The components that have weights."""

# Safetensors only: the same repositories also carry pickles, half-precision twins and whole-model checkpoints.
_ENDS = ("json", "txt", "safetensors")
WANTED_FILES = ["model_index.json", *(f"{component}/*.{end}" for component in CONFIG_FILES for end in _ENDS)]
UNWANTED_FILES = ["*.fp16.safetensors", "*.fp16-*.safetensors", "*.non_ema*"]
CONFIGS = [name for name in WANTED_FILES if not name.endswith(".safetensors")]
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".th")
"""Ends of files that can run code when they are opened."""

_VARIANT = re.compile(r"(?:model|diffusion_pytorch_model)\.([A-Za-z]\w*)(?:-\d+-of-\d+)?\.safetensors")

ALTERNATIVES = (
    "give a folder in Stable Diffusion 2.1's layout or another hub id (owner/name) as the prior, "
    "or set HF_ENDPOINT to a mirror of the hub"
)
"""Other ways to a model, for error messages."""


def missing_component(folder: Path) -> str | None:
    """Return the first component whose config is missing, with the expected file; None if all exist."""
    for component, files in CONFIG_FILES.items():
        if not any((folder / component / file).is_file() for file in files):
            return f"{component} (no {component}/{files[0]})"
    return None


def has_weights(folder: Path) -> bool:
    """Return whether every network has a weight file, of any precision."""
    return all(any(file.is_file() for file in (folder / name).glob("*.safetensors")) for name in NETWORKS)


def missing_part(folder: Path) -> str | None:
    """Return the first missing component, or a note on weight files if only these are missing; None if all exist."""
    missing = missing_component(folder)
    if missing is None and not has_weights(folder):
        missing = f"weights (no .safetensors in one of {', '.join(NETWORKS)})"
    return missing


def variant_of(names: Collection[str]) -> str | None:
    """Return diffusers' variant ("fp16") of a component's weight files if they exist in no other form, else None."""
    found = [_VARIANT.fullmatch(Path(name).name) for name in names if name.endswith(".safetensors")]
    variants = {match[1] for match in found if match}
    if not variants or not all(found):
        return None
    return "fp16" if "fp16" in variants else min(variants)


def unwanted_files(names: Collection[str]) -> list[str]:
    """Return patterns of the files to leave on the hub: half-precision twins, unless there is nothing else."""
    patterns = ["*.non_ema*"]
    for network in NETWORKS:
        if variant_of([name for name in names if name.startswith(f"{network}/")]) != "fp16":
            patterns += [f"{network}/*.fp16.safetensors", f"{network}/*.fp16-*.safetensors"]
    return patterns


def pickles_instead(component: str, names: Collection[str]) -> list[str]:
    """Return a component's pickles if it has no safetensors; ``names`` are paths in the repository or folder."""
    files = [name for name in names if fnmatch(name, f"{component}/*")]
    if any(name.endswith(".safetensors") for name in files):
        return []
    return sorted(name for name in files if name.endswith(PICKLES))


def pickle_error(what: str) -> UserError:
    """Return the error for a file that can run code when it is opened."""
    return UserError(
        f"{what} is a pickle, which can run code when it is opened, and is no prior: take its .safetensors twin, or, "
        "of a whole model, sdi-gs priors convert FILE FOLDER, which reads tensors and nothing else"
    )


def in_one_line(error: Exception) -> str:
    """Return the first line of a library's error message, which is often a page long."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200].rstrip(' .:')}"
