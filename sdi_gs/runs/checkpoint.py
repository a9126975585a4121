"""Checkpoints: one folder per saved step, safetensors beside JSON, whole or absent.

A checkpoint is ``step_000300/`` with ``tensors.safetensors`` and ``checkpoint.json``; the JSON names the format's
version and the checksums of both. The folder is written under another name and renamed when all of it is on the
disk, so that a crash at any moment leaves the earlier checkpoints as they were, and one of the same step can be found.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from sdi_gs.errors import UserError
from sdi_gs.files import disk_errors, sync_file, sync_folder
from sdi_gs.representations.saved_state import part_of
from sdi_gs.runs.checkpoint_folders import (
    asides_in,
    is_named,
    move_into_place,
    name_of,
    new_aside,
    remove,
    remove_leftovers,
    step_of,
)
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tree import config_from_dict

FORMAT = "sdi-gs checkpoint"
FORMAT_VERSION = 1

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

_TENSORS, _HEADER = "tensors.safetensors", "checkpoint.json"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The state of a run after ``step`` finished steps."""

    step: int
    tensors: dict[str, Tensor]
    """On the CPU, bit for bit as they were saved."""
    meta: dict[str, Json]
    """Everything that is no tensor."""


def config_in_force(checkpoint: Checkpoint) -> RunConfig:
    """Return the settings of a checkpoint's last step: those of the run, unless they were changed while it trained.

    Raises UserError for values that are no settings.
    """
    return _config(checkpoint, "config")


def config_at_start(checkpoint: Checkpoint) -> RunConfig:
    """Return the settings that a checkpoint's run was started with; UserError for values that are no settings."""
    # Checkpoints of 0.1 have only one config.
    return _config(checkpoint, "started_with" if "started_with" in checkpoint.meta else "config")


def _config(checkpoint: Checkpoint, name: str) -> RunConfig:
    try:
        return config_from_dict(part_of(checkpoint.meta, name, dict))
    except UserError as error:
        raise UserError(f"the checkpoint of step {checkpoint.step} cannot be used: {error}") from error


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Tensor], meta: Mapping[str, Json], *, keep: int | None = 2
) -> Path:
    """Write ``folder/step_<step>/`` and leave at most ``keep`` checkpoints, this one and those before it.

    A step whose state is already on the disk is not written again. Checkpoints of later steps, which a resumed run has
    left behind, are removed. ``keep`` None keeps all earlier ones. Raises UserError if the disk is full or the folder
    cannot be written; earlier checkpoints are then kept.
    """
    if keep is not None and keep < 1:
        raise ValueError(f"keep must be at least 1, not {keep}")
    # Copies, because safetensors refuses tensors that share memory.
    data = save({name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()})
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "step": step,
        "tensors_sha256": hashlib.sha256(data).hexdigest(),
        "meta_sha256": _meta_sha256(meta),
        "meta": meta,
    }
    target = folder / name_of(step)
    with disk_errors(target):
        folder.mkdir(parents=True, exist_ok=True)
        for aside in _whole_asides(folder):
            os.rename(aside, folder / name_of(_step(aside)))
        remove_leftovers(folder)
        if not _is_saved(target, header):
            _write(target, data, header)
        others = [path for path in list_checkpoints(folder) if path != target]
        earlier = [path for path in others if _step(path) < step]
        kept = earlier if keep is None else earlier[max(len(earlier) - (keep - 1), 0) :]
        for path in others:
            if path not in kept:
                remove(path)
    return target


def _write(target: Path, data: bytes, header: Mapping[str, Any]) -> None:
    """Write a checkpoint under another name, then move it into place."""
    aside = new_aside(target)
    try:
        aside.mkdir()
        _write_synced(aside / _TENSORS, data)
        _write_synced(aside / _HEADER, (json.dumps(header, indent=1) + "\n").encode())
        sync_folder(aside)
        move_into_place(aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _is_saved(target: Path, header: Mapping[str, Any]) -> bool:
    """Return whether a whole checkpoint of this state is on the disk."""
    if not target.exists() or not _is_whole(target):
        return False
    saved = _read_header(target / _HEADER)
    return all(saved[key] == header[key] for key in ("tensors_sha256", "meta_sha256"))


def list_checkpoints(folder: Path) -> list[Path]:
    """Return all checkpoint folders in ``folder``, earliest step first; their contents are not checked.

    Where a program was killed while it moved a checkpoint, the whole one that it left aside is in its place.
    """
    if not folder.is_dir():
        return []
    named = [path for path in folder.iterdir() if is_named(path)]
    return sorted([*named, *_whole_asides(folder)], key=_step)


def _whole_asides(folder: Path) -> list[Path]:
    """Return one whole aside for each step that has no checkpoint under its name."""
    taken = {step_of(path) for path in folder.iterdir() if is_named(path)}
    found = []
    for path in asides_in(folder):
        if step_of(path) not in taken and _is_whole(path):
            found.append(path)
            taken.add(step_of(path))
    return found


def is_checkpoint(path: Path) -> bool:
    """Return whether ``path`` is a checkpoint's folder or one of its two files; their contents are not checked."""
    folder = checkpoint_folder(path)
    return step_of(folder) is not None and any((folder / name).is_file() for name in (_TENSORS, _HEADER))


def checkpoint_folder(path: Path) -> Path:
    """Return the folder of a checkpoint, given the folder or one of its files."""
    # Unlike pathlib, this bears links that lead to themselves.
    resolved = Path(os.path.realpath(path))
    return resolved.parent if resolved.name in (_TENSORS, _HEADER) else resolved


def latest_checkpoint(folder: Path) -> Path:
    """Return the checkpoint of the latest step; UserError if there is none."""
    found = list_checkpoints(folder)
    if not found:
        raise UserError(f"no checkpoint in {folder}: the run was stopped before its first one; start it anew")
    return found[-1]


def checkpoint_at(folder: Path, step: int) -> Path:
    """Return the checkpoint of a step; UserError that names those there are."""
    found = {_step(path): path for path in list_checkpoints(folder)}
    if step not in found:
        steps = ", ".join(map(str, found)) or "none"
        raise UserError(f"no checkpoint of step {step} in {folder}: there are {steps}")
    return found[step]


def load_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint folder in full.

    Raises UserError for one that is missing, damaged, half-written or of another format; the line names an earlier
    checkpoint of the same run that is whole, if there is one.
    """
    try:
        return _load(path)
    except UserError as error:
        raise UserError(f"{error}; {_way_out(path)}") from error


def pack_state(tree: object, name: str = "") -> tuple[dict[str, Tensor], Json]:
    """Split a state dict, such as an optimiser's, into tensors and JSON; ``unpack_state`` is the exact inverse.

    The tree may hold dicts (keys of str or int), lists, tuples, tensors, numbers, strings and None. A tensor's
    name is its path joined by "/", below ``name``. TypeError for anything else, ValueError for a "/" in a key.
    """
    tensors: dict[str, Tensor] = {}
    return tensors, _pack(tree, name, tensors)


def unpack_state(tensors: Mapping[str, Tensor], packed: Json) -> Any:
    """Return the tree that ``pack_state`` split; KeyError for a missing tensor."""
    match packed:
        case {"tensor": str(name)}:
            return tensors[name]
        case {"tuple": list(items)}:
            return tuple(unpack_state(tensors, item) for item in items)
        case {"list": list(items)}:
            return [unpack_state(tensors, item) for item in items]
        case {"dict": list(pairs)}:
            return {key: unpack_state(tensors, value) for key, value in pairs}  # pyright: ignore[reportGeneralTypeIssues]
        case _:
            return packed


def _pack(tree: object, name: str, tensors: dict[str, Tensor]) -> Json:
    """Tag containers, since JSON would turn keys into strings and tuples into lists."""
    match tree:
        case Tensor():
            tensors[name] = tree
            return {"tensor": name}
        case None | bool() | int() | float() | str():
            return tree
        case tuple():
            return {"tuple": [_pack(item, _join(name, index), tensors) for index, item in enumerate(tree)]}
        case list():
            return {"list": [_pack(item, _join(name, index), tensors) for index, item in enumerate(tree)]}
        case dict():
            return {"dict": [[key, _pack(value, _join(name, key), tensors)] for key, value in tree.items()]}
        case _:
            raise TypeError(f"{name or 'the state'} is a {type(tree).__name__}, which checkpoints cannot hold")


def _join(name: str, key: object) -> str:
    if not isinstance(key, str | int) or "/" in str(key):
        raise ValueError(f"{key!r} cannot be a key of a state dict: str without '/' or int")
    return f"{name}/{key}" if name else str(key)


def _step(path: Path) -> int:
    step = step_of(path)
    if step is None:
        raise ValueError(f"{path} is not named like a checkpoint")
    return step


def _is_whole(path: Path) -> bool:
    try:
        _load(path)
    except UserError:
        return False
    return True


def _write_synced(file: Path, data: bytes) -> None:
    with file.open("xb") as opened:
        opened.write(data)
        opened.flush()
        sync_file(opened.fileno())


def _meta_sha256(meta: object) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def _load(path: Path) -> Checkpoint:
    header = _read_header(path / _HEADER)
    with disk_errors(path / _TENSORS, "read"):
        data = (path / _TENSORS).read_bytes()
    if hashlib.sha256(data).hexdigest() != header.get("tensors_sha256"):
        raise UserError(f"{path / _TENSORS} is damaged (its checksum is not the one in {_HEADER})")
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise UserError(f"{path / _TENSORS} is no safetensors file ({error})") from error
    return Checkpoint(step=header["step"], tensors=tensors, meta=header["meta"])


def _read_header(file: Path) -> dict[str, Any]:
    with disk_errors(file, "read"):
        text = file.read_bytes()
    try:
        header = json.loads(text)
        meta_sha256 = _meta_sha256(header.get("meta") if isinstance(header, dict) else None)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged (not JSON)") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise UserError(f"{file} is not of a {FORMAT}")
    if header.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"{file} has format version {header.get('format_version')!r}, this program reads {FORMAT_VERSION}"
        )
    if header.get("meta_sha256") != meta_sha256 or not isinstance(header.get("meta"), dict):
        raise UserError(f"{file} is damaged (its checksum differs)")
    step = header.get("step")
    if not isinstance(step, int) or isinstance(step, bool) or step_of(file.parent) != step:
        raise UserError(f"{file} is of step {step!r}, which is not what its folder says")
    return header


def _way_out(path: Path) -> str:
    """Return the advice for a checkpoint that cannot be loaded."""
    for earlier in reversed(list_checkpoints(path.parent)):
        if _step(earlier) < (step_of(path) or 0) and _is_whole(earlier):
            return f"delete {path} to go on from {earlier.name}, which is whole"
    return "no earlier checkpoint of the run is whole, so start it anew"
