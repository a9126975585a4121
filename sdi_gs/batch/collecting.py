"""The files of a run folder on their way between machines that share none. Imports no torch.

What is sent are the files that have changed since the last time, and the names of all that there are, so that the
receiver has the same folder afterwards. A checkpoint is renamed into place when it is whole.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sdi_gs.errors import UserError
from sdi_gs.files import disk_errors, write_atomically
from sdi_gs.runs.writer_lock import LOCK

Stamp = tuple[int, int]
"""Size and time of a file, by which a change is noticed."""


@dataclass(frozen=True, kw_only=True)
class Files:
    """A run folder, as it is sent."""

    names: tuple[str, ...] = ()
    """Paths of all its files, from the folder on."""
    contents: Mapping[str, bytes] = field(default_factory=dict)
    """Contents of those that are new or have changed."""
    known: Mapping[str, Stamp] = field(default_factory=dict)
    """Stamps of all files, for the next time."""


def changed_files(folder: Path, known: Mapping[str, Stamp]) -> Files:
    """Return a folder's files, with the contents of those whose stamps are not ``known``."""
    stamps: dict[str, Stamp] = {}
    contents: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        name = path.relative_to(folder).as_posix()
        # Names with a dot are files that are being written, and the lock.
        if not path.is_file() or any(part.startswith(".") for part in Path(name).parts):
            continue
        with disk_errors(path, "read"):
            status = path.stat()
            stamps[name] = (status.st_size, status.st_mtime_ns)
            if known.get(name) != stamps[name]:
                contents[name] = path.read_bytes()
    return Files(names=tuple(stamps), contents=contents, known=stamps)


def write_files(folder: Path, files: Files) -> None:
    """Make a folder the same as the one that was sent; UserError if it cannot be written."""
    checkpoints: dict[str, dict[str, bytes]] = {}
    with disk_errors(folder):
        if files.names:
            folder.mkdir(parents=True, exist_ok=True)
            for name in ("previews", "checkpoints"):
                (folder / name).mkdir(exist_ok=True)
        for name, content in files.contents.items():
            parts = _parts(name)
            if parts[0] == "checkpoints" and len(parts) == 3:
                checkpoints.setdefault(parts[1], {})[parts[2]] = content
                continue
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / name, content, overwrite=True)
        for step, contents in checkpoints.items():
            _write_checkpoint(folder / "checkpoints" / step, contents)
        _remove_others(folder, set(files.names))


def _write_checkpoint(target: Path, contents: Mapping[str, bytes]) -> None:
    """Write a checkpoint under a name that is none, and rename it."""
    aside = target.with_name(f".collected-{secrets.token_hex(4)}")
    aside.mkdir()
    try:
        for name, content in contents.items():
            write_atomically(aside / name, content)
        if target.exists():
            shutil.rmtree(target)
        os.rename(aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _remove_others(folder: Path, names: set[str]) -> None:
    """Remove the files that the sender does not have, and folders of checkpoints that are empty then."""
    for path in list(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and path.name != LOCK and name not in names:
            path.unlink()
    for path in folder.glob("checkpoints/*"):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _parts(name: str) -> tuple[str, ...]:
    """Return the parts of a sent name; UserError for one that leads out of the folder."""
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise UserError(f"a node sent a file named {name!r}, which leads out of its run folder")
    return path.parts
