"""Names of checkpoints on the disk, and how one folder takes the place of another.

``step_000300/`` is a checkpoint. While it is written it is called ``.aside-step_000300``; while a later state of the
same step takes its place, the earlier one is called ``.aside-old-step_000300``. What a killed program leaves under
these two names is a checkpoint if it is whole. ``.aside-gone-`` stands before what is being removed.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from sdi_gs.files import sync_folder

_NAME = re.compile(r"(?P<aside>\.aside-(?:old-)?)?step_(?P<step>\d{6,})")
_NEW, _OLD, _GONE = ".aside-", ".aside-old-", ".aside-gone-"


def name_of(step: int) -> str:
    """Return the name of a step's checkpoint."""
    return f"step_{step:06d}"


def step_of(path: Path) -> int | None:
    """Return the step that a checkpoint's name, or an aside's, says; None for another name."""
    matched = _NAME.fullmatch(path.name)
    return None if matched is None else int(matched["step"])


def is_named(path: Path) -> bool:
    """Return whether a path has the name of a checkpoint and is no aside."""
    matched = _NAME.fullmatch(path.name)
    return matched is not None and matched["aside"] is None


def asides_in(folder: Path) -> list[Path]:
    """Return what a killed program may have left of a checkpoint, the newest state of a step first."""
    found = [path for path in folder.iterdir() if step_of(path) is not None and not is_named(path)]
    return sorted(found, key=lambda path: (step_of(path), path.name.startswith(_OLD)))


def new_aside(target: Path) -> Path:
    """Return the name under which a checkpoint is written."""
    return target.with_name(f"{_NEW}{target.name}")


def move_into_place(aside: Path, target: Path) -> None:
    """Rename a whole ``aside`` to ``target``; an earlier ``target`` is whole under one name or another until then."""
    old = target.with_name(f"{_OLD}{target.name}")
    try:
        if target.exists():
            os.rename(target, old)
        os.rename(aside, target)
    finally:
        if old.exists() and not target.exists():
            os.rename(old, target)
    sync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def remove(path: Path) -> None:
    """Remove a checkpoint, renamed first, so that a crash leaves no half of it under its name."""
    gone = path.with_name(f"{_GONE}{path.name}")
    os.rename(path, gone)
    shutil.rmtree(gone)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed program left; a run folder has one writer at a time."""
    for path in folder.glob(f"{_NEW}*"):
        shutil.rmtree(path)
