"""Make a folder in Stable Diffusion's layout, with safetensors, from one file with a whole model, pickle or not.

MVDream's weights were published as a pickle alone. Its tensors are read by torch's restricted reader, and the folder is
whole or absent.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from sdi_gs.errors import UserError
from sdi_gs.files import disk_errors, refuse_impossible, refuse_used_folder, require_file, sync_file, sync_folder
from sdi_gs.priors.checkpoint_files import UNET, CheckpointFile, checkpoint_of
from sdi_gs.priors.checkpoint_loading import parts_of_tensors
from sdi_gs.priors.empty_networks import empty_parts, require_usable
from sdi_gs.priors.fetch import readable_size, sha256_of
from sdi_gs.priors.latent_diffusion_loading import prior_of_parts
from sdi_gs.priors.layout import NETWORKS, PICKLES, in_one_line
from sdi_gs.priors.model_folder import inspect_folder
from sdi_gs.priors.parts import Parts, Placement
from sdi_gs.priors.pickled_weights import read_pickle
from sdi_gs.priors.quiet import without_messages, without_progress_bars
from sdi_gs.priors.safetensors_header import Header, is_pickle, read_header
from sdi_gs.priors.schedulers import read_scheduler

ORIGIN = "converted.json"
"""File in the folder that names the one that it was made from, with its sum."""
_LEVELS = "alphas_cumprod"
_SAME_LEVEL = 1e-5
"""Largest difference of noise levels; those of the published code were computed in float64."""


def convert(file: Path, folder: Path, *, say: Callable[[str], None] = lambda _: None) -> Path:
    """Write a file's model as a new folder, in the weights' own precision, and return the folder.

    Raises UserError for a file that is not there, is damaged, is of another kind, or has other noise levels than
    Stable Diffusion's; for a folder that exists; and for a disk without room.
    """
    require_file(file)
    refuse_impossible(folder)
    refuse_used_folder(folder)
    checkpoint, tensors = _opened(file)
    first = tensors[f"{UNET}input_blocks.0.0.weight"].dtype
    placement = Placement(device="cpu", dtype=first if first.is_floating_point else torch.float32)
    parts = parts_of_tensors(checkpoint, tensors, placement)
    _require_known_levels(file, tensors, parts)
    for note in parts.notes:
        say(note)
    origin = {"file": file.name, "bytes": file.stat().st_size, "sha256": sha256_of(file)}
    say(f"sha256 of {file.name}: {origin['sha256']}")
    _write(parts, folder, origin)
    return folder


def _opened(file: Path) -> tuple[CheckpointFile, Mapping[str, Tensor]]:
    """Return what a file is, and its tensors."""
    from safetensors.torch import load_file

    if not is_pickle(file):
        return checkpoint_of(read_header(file)), load_file(file)
    if file.suffix.lower() not in PICKLES:
        # torch goes by the name.
        raise UserError(f"{file} is a pickle by its content: name it {file.stem}.pt, and convert that")
    tensors = read_pickle(file)
    header = Header(
        path=file,
        shapes={name: tuple(value.shape) for name, value in tensors.items()},
        kinds={name: str(value.dtype).removeprefix("torch.") for name, value in tensors.items()},
        metadata={},
    )
    return checkpoint_of(header), tensors


def _require_known_levels(file: Path, tensors: Mapping[str, Tensor], parts: Parts) -> None:
    """Raise UserError if a file has noise levels that are not those of the scheduler that it will be used with."""
    if _LEVELS not in tensors:
        return
    known, own = read_scheduler(parts.scheduler)[0].alphas_cumprod, tensors[_LEVELS].double()
    if own.shape != known.shape or not bool(torch.allclose(own, known, rtol=0.0, atol=_SAME_LEVEL)):
        raise UserError(
            f"{file} was trained on other noise levels than Stable Diffusion's (its {_LEVELS}): it cannot be converted"
        )


def _write(parts: Parts, folder: Path, origin: Mapping[str, object]) -> None:
    """Write the parts aside, and give the folder its name once it is whole."""
    aside = folder.with_name(f".{secrets.token_hex(4)}-{folder.name[:50]}")
    with _writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _require_room(parts, folder)
        try:
            with without_messages(), without_progress_bars():
                parts.tokenizer.save_pretrained(aside / "tokenizer")
                for name in NETWORKS:
                    getattr(parts, name).save_pretrained(aside / name, safe_serialization=True)
            (aside / "scheduler").mkdir()
            _write_json(aside / "scheduler" / "scheduler_config.json", parts.scheduler)
            _write_json(aside / ORIGIN, origin)
            empty = empty_parts(inspect_folder(aside))
            require_usable(prior_of_parts(empty, aside, name=folder.name), aside)
            _sync(aside)
            if folder.is_dir():
                # Empty, or it would have been refused.
                folder.rmdir()
            os.rename(aside, folder)
            sync_folder(folder.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    from safetensors import SafetensorError

    with disk_errors(folder):
        try:
            yield
        except SafetensorError as error:
            # Its name for what the system answered.
            raise UserError(f"cannot write {folder} ({in_one_line(error)}): check the room on the disk") from error


def _require_room(parts: Parts, folder: Path) -> None:
    networks = (getattr(parts, name) for name in NETWORKS)
    needed = sum(
        value.numel() * value.element_size() for network in networks for value in network.state_dict().values()
    )
    free = shutil.disk_usage(folder.parent).free
    if needed > free:
        raise UserError(
            f"{folder} takes {readable_size(needed)}, and {readable_size(free)} are free there: make room, or choose "
            "another place"
        )


def _sync(folder: Path) -> None:
    for file in filter(Path.is_file, sorted(folder.rglob("*"))):
        with file.open("rb+") as opened:
            sync_file(opened.fileno())


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
