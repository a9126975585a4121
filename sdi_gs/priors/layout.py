"""The folder layout of Stable Diffusion 2.1: the files of a model, and checks for missing ones."""

from __future__ import annotations

from pathlib import Path

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
WANTED_FILES = [f"{name}/*.{suffix}" for name in CONFIG_FILES for suffix in ("json", "txt", "safetensors")]
UNWANTED_FILES = ["*.fp16.safetensors", "*.fp16-*.safetensors", "*.non_ema*"]

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


def in_one_line(error: Exception) -> str:
    """Return the first line of a library's error message, which is often a page long."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200].rstrip(' .:')}"
