"""What a model's folder or file is: complete, of a supported kind, and with configs that networks can be made from.

``model_at`` is asked by listing, fetching, checking and loading alike, so that what is listed can be loaded. Free of
torch; no weights are read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdi_gs.errors import UserError
from sdi_gs.priors.checkpoint_files import CheckpointFile, inspect_checkpoint
from sdi_gs.priors.kinds import read_json, refuse_other_kind
from sdi_gs.priors.layout import (
    ALTERNATIVES,
    CONFIG_FILES,
    NETWORKS,
    in_one_line,
    missing_component,
    pickles_instead,
    variant_of,
)
from sdi_gs.priors.safetensors_header import Header, read_header
from sdi_gs.settings.bounds import Range
from sdi_gs.settings.shown import shown

LARGEST_CONFIG = 2**20
"""Bytes of a component's config; Stable Diffusion's have some thousand."""

_WIDTH = Range(1, 65_536)
_LEVELS, _LAYERS = Range(1, 16), Range(1, 256)
_NUMBERS: Mapping[str, Mapping[str, Range]] = {
    "scheduler": {
        "num_train_timesteps": Range(2, 100_000),
        "steps_offset": Range(0, 100),
        "beta_start": Range(0.0, 1.0, low_open=True, high_open=True),
        "beta_end": Range(0.0, 1.0, low_open=True, high_open=True),
    },
    "unet": {
        "in_channels": _WIDTH,
        "out_channels": _WIDTH,
        "sample_size": Range(1, 1024),
        "block_out_channels": _WIDTH,
        "layers_per_block": _LAYERS,
        "transformer_layers_per_block": _LAYERS,
        "reverse_transformer_layers_per_block": _LAYERS,
        "cross_attention_dim": _WIDTH,
    },
    "vae": {
        "latent_channels": _WIDTH,
        "sample_size": Range(1, 8192),
        "block_out_channels": _WIDTH,
        "layers_per_block": _LAYERS,
        "scaling_factor": Range(1e-6, 1e6),
    },
    "text_encoder": {
        "hidden_size": _WIDTH,
        "intermediate_size": _WIDTH,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": Range(1, 1024),
        "vocab_size": Range(1, 10_000_000),
        "max_position_embeddings": Range(3, 65_536),
    },
}
"""Numbers that decide on the work and the memory of making a component. Whether they fit each other, and all other
settings, show when the networks are tried without weights. Absent ones have their library's default."""
_FRACTIONS = ("beta_start", "beta_end", "scaling_factor")
_LISTS = (
    *("block_out_channels", "layers_per_block", "cross_attention_dim"),
    *("transformer_layers_per_block", "reverse_transformer_layers_per_block"),
)
"""Settings that may have one value for each level."""


@dataclass(frozen=True, kw_only=True)
class ModelFolder:
    """A folder in Stable Diffusion's layout."""

    path: Path
    configs: Mapping[str, Mapping[str, Any]]
    """Of each component but the tokenizer, which has several files that its library reads."""
    headers: Mapping[str, tuple[Header, ...]] | None
    """Of the files with each network's weights; None if these are not here."""

    @property
    def prediction_type(self) -> str | None:
        """What its scheduler's config names, None if that is no name; diffusers takes "epsilon" if it has none."""
        named = self.configs["scheduler"].get("prediction_type", "epsilon")
        return named if isinstance(named, str) else None

    @property
    def size_bytes(self) -> int | None:
        """Bytes of the weights; None if they are not here."""
        if self.headers is None:
            return None
        return sum(header.path.stat().st_size for headers in self.headers.values() for header in headers)


def model_at(path: Path) -> ModelFolder | CheckpointFile:
    """Return what a folder or file is; UserError, naming what is wrong, for one that no prior can be made from."""
    if path.is_file():
        return inspect_checkpoint(path)
    if not path.is_dir():
        raise UserError(f"{path} is neither a folder nor a file: {ALTERNATIVES}")
    return inspect_folder(path)


def inspect_folder(path: Path, *, has_weights: bool = True) -> ModelFolder:
    """Return what a folder holds, with ``has_weights`` False one with configs only.

    Raises UserError for another kind of model, for a component that is missing, for a config that is no JSON object or
    has numbers that no model has, and for weights that are missing, pickled, cut short or not of floating point.
    """
    refuse_other_kind(path)
    missing = missing_component(path)
    if missing is not None:
        raise UserError(f"the model in {path} lacks its {missing}: complete the folder, or {ALTERNATIVES}")
    headers = {name: _headers(path, name) for name in NETWORKS} if has_weights else None
    configs = {name: _config(path, name) for name in CONFIG_FILES if name != "tokenizer"}
    for component, numbers in _NUMBERS.items():
        for key, accepted in numbers.items():
            _require_numbers(path, component, key, configs[component].get(key), accepted)
    return ModelFolder(path=path, configs=configs, headers=headers)


def damaged(folder: Path, component: str, what: str) -> UserError:
    """Return the error for a component whose files cannot be what they should."""
    return UserError(f"the {component} in {folder} cannot be loaded ({what}): download it again, or {ALTERNATIVES}")


def _headers(folder: Path, network: str) -> tuple[Header, ...]:
    """Return the headers of the files that both libraries would read."""
    names = sorted(file.name for file in (folder / network).iterdir())
    pickles = pickles_instead(network, [f"{network}/{name}" for name in names])
    if pickles:
        raise UserError(
            f"the {network} in {folder} cannot be loaded: it has no .safetensors, only {Path(pickles[0]).name}, a "
            f"pickle, which can run code when it is opened and is never used; convert it where you trust it, or "
            f"{ALTERNATIVES}"
        )
    stem = "model" if network == "text_encoder" else "diffusion_pytorch_model"
    variant = variant_of(names)
    pattern = re.compile(rf"{stem}{'' if variant is None else f'[.]{variant}'}(-\d+-of-\d+)?\.safetensors")
    used = [folder / network / name for name in names if pattern.fullmatch(name)]
    if not used:
        raise UserError(
            f"the model in {folder} lacks its weights: the {network} in {folder} cannot be loaded (it has no "
            f"{stem}.safetensors): complete the folder, or {ALTERNATIVES}"
        )
    try:
        headers = tuple(map(read_header, used))
    except UserError as error:
        raise UserError(f"the {network} in {folder} cannot be loaded: {error}") from error
    for header in headers:
        coded = next((name for name, kind in header.kinds.items() if not _is_weight(name, kind)), None)
        if coded is not None:
            raise damaged(folder, network, f"{coded} is of type {shown(header.kinds[coded])}, not of floating point")
    return headers


def _is_weight(name: str, kind: str) -> bool:
    # CLIP's position ids are counted, not learned, and in older files only.
    return kind.startswith(("F", "BF")) or name.endswith("position_ids")


def _config(folder: Path, component: str) -> Mapping[str, Any]:
    file = folder / component / CONFIG_FILES[component][0]
    if file.stat().st_size > LARGEST_CONFIG:
        raise damaged(folder, component, f"{file.name} has {file.stat().st_size} bytes, too many for a config")
    try:
        return read_json(file)
    except (OSError, ValueError) as error:
        raise damaged(folder, component, in_one_line(error)) from error


def _require_numbers(folder: Path, component: str, key: str, value: Any, accepted: Range) -> None:
    """Raise UserError for numbers that are none or out of bounds, and for more than there can be levels."""
    values = [value]
    if isinstance(value, list) and key in _LISTS:
        values = value
        if len(values) not in _LEVELS:
            raise damaged(folder, component, f"{key} has {len(values)} values: it must have {_LEVELS}")
    elif value is None or (component, key, type(value)) == ("unet", "sample_size", list):
        # Pictures that are not square have an error of their own.
        return
    for one in values:
        whole = key not in _FRACTIONS
        is_number = isinstance(one, int if whole else int | float) and not isinstance(one, bool)
        if not is_number or one not in accepted:
            kind = "a whole number, " if whole else ""
            raise damaged(folder, component, f"{key} is {shown(one)}: it must be {kind}{accepted}")
