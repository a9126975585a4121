"""Files that are either whole or absent: written aside, flushed to the disk, then renamed into place."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from sdi_gs.errors import DiskFullError, UserError
from sdi_gs.settings.shown import shown

_LONGEST_NAME = 300
"""Characters of a path in a message."""
_NAME_OF_ASIDE = 50
"""Characters of a file's name that are part of the name that it is written under; of 4 bytes each at most."""
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOT_SUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
"""Errors of file systems that do not offer an operation, such as shared folders of virtual machines."""

_LONGEST_PART = 255
"""Bytes of one name in a path, on the usual file systems."""


@contextmanager
def disk_errors(path: Path, action: str = "write") -> Iterator[None]:
    """Raise UserError in one line in place of an OSError about ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise DiskFullError(path) from error
        reason, name = error.strerror or str(error), str(path)
        name = name if len(name) <= _LONGEST_NAME else shown(name)
        raise UserError(f"cannot {action} {name}: {reason}; check the path and its permissions") from error


def is_there(path: Path) -> bool:
    """Return whether there is a file or a folder; UserError for a path that no file can have.

    Names can be too long, and links can lead to themselves.
    """
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"cannot read {shown(str(path))}: {reason}; check the path and its permissions") from error
    return True


def require_file(path: Path) -> None:
    """Raise UserError unless ``path`` is a file."""
    if path.is_dir():
        raise UserError(f"cannot read {path}: it is a folder, not a file")
    if not path.is_file():
        raise UserError(f"cannot read {path}: there is no such file")


def refuse_existing(path: Path) -> None:
    """Raise UserError if ``path`` exists, even as a dangling link."""
    if os.path.lexists(path):
        raise UserError(f"{path} exists and is never overwritten: choose another name or move it away")


def refuse_used_folder(path: Path, advice: str = "choose another name or move it away") -> None:
    """Raise UserError unless ``path`` is free or an empty folder, such as a volume that was mounted for the results."""
    with disk_errors(path, "read"):
        if os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir())):
            raise UserError(f"{path} exists and is never overwritten: {advice}")


def refuse_impossible(path: Path) -> None:
    """Raise UserError for a path that nothing can be written to: names too long, links in a loop, a file as a folder.

    Called before work whose result is for ``path``, and before any folder on the way to it is made.
    """
    with disk_errors(path):
        if any(len(os.fsencode(part)) > _LONGEST_PART for part in path.parts):
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        with suppress(FileNotFoundError):
            os.stat(path)


def make_new_folder(path: Path) -> None:
    """Make a folder, or take an empty one; UserError as ``refuse_used_folder``, and where it cannot be made."""
    refuse_impossible(path)
    refuse_used_folder(path)
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)


def first_free_number(is_taken: Callable[[int], bool]) -> int:
    """Return the lowest number from 1 on that is not taken."""
    return next(number for number in count(1) if not is_taken(number))


def make_numbered_folder(stem: Path) -> Path:
    """Make the folder ``<stem>-<n>`` with the lowest free n from 1 on, and return its path.

    Raises UserError if it cannot be made.
    """

    def is_taken(number: int) -> bool:
        try:
            # Making it is the one atomic test: two runs that start together get two folders.
            stem.with_name(f"{stem.name}-{number}").mkdir()
        except FileExistsError:
            return True
        return False

    with disk_errors(stem.parent):
        stem.parent.mkdir(parents=True, exist_ok=True)
        return stem.with_name(f"{stem.name}-{first_free_number(is_taken)}")


def user_cache_folder() -> Path:
    """Return the user's folder of what can be made again: $XDG_CACHE_HOME, else ~/.cache.

    A user without a home (a container's uid) gets a path that does not exist, under Debian's name for no home.
    """
    chosen = os.environ.get("XDG_CACHE_HOME")
    if chosen:
        return Path(chosen)
    try:
        return Path.home() / ".cache"
    except RuntimeError:
        return Path("/nonexistent/.cache")


def sync_file(descriptor: int) -> None:
    """Flush a file to the disk; a no-op on a file system that cannot. Raises OSError if the file could not be kept."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise


def sync_folder(folder: Path) -> None:
    """Make renames within a folder survive a power cut, where the system can; the files are whole without it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        # Windows opens no folders.
        return
    try:
        # CIFS, VirtualBox and WSL refuse with EINVAL, ENOTSUP or EIO.
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacement_for(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield a new name beside ``path`` to write to, which is renamed to ``path`` if the body succeeds.

    Raises UserError if ``path`` exists and ``overwrite`` is false, and for a full disk or a forbidden folder.
    """
    if not overwrite:
        refuse_existing(path)
    # Only the beginning of a long name, which may have no room for more letters.
    aside = path.with_name(f".{secrets.token_hex(4)}-{path.name[:_NAME_OF_ASIDE]}")
    try:
        with disk_errors(path):
            yield aside
            with aside.open("rb+") as written:
                sync_file(written.fileno())
            os.replace(aside, path)
            sync_folder(path.parent)
    finally:
        # After a success it is gone; after a failure the first error is the one to report.
        with suppress(OSError):
            aside.unlink()


def write_atomically(path: Path, *chunks: bytes | memoryview, overwrite: bool = False) -> None:
    """Write the chunks one after the other as one file (UserError as ``replacement_for``)."""
    with replacement_for(path, overwrite=overwrite) as aside, aside.open("xb") as file:
        for chunk in chunks:
            file.write(chunk)
