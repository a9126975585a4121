"""One writer per run folder, by a lock that ends with the process that holds it."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sdi_gs.errors import UserError
from sdi_gs.files import disk_errors

LOCK = ".writer"
"""File in a run's folder while a process writes to it; a dead process may leave it, and holds nothing by it."""


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold a run's folder for one writer.

    Raises UserError if another process, or another call in this one, holds it. Where the file system has no locks
    nothing is held and nothing refused.
    """
    file = folder / LOCK
    descriptor = _locked(file)
    try:
        yield
    finally:
        # While the lock is held, so that nobody else's file is removed.
        with suppress(OSError):
            file.unlink()
        os.close(descriptor)


def is_held(folder: Path) -> bool:
    """Return whether another process, or another call in this one, writes to a run's folder now."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _locked(file: Path) -> int:
    """Open the lock's file, lock it where that is possible, and return its descriptor."""
    while True:
        with disk_errors(file):
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise UserError(
                f"{file.parent} is being written by another process ({holder or 'just started'}): wait for it, or stop "
                "it and go on afterwards"
            ) from None
        except OSError:
            # Some shared folders have no locks (ENOLCK, ENOTSUP, EBADF).
            return descriptor
        if _is_same_file(descriptor, file):
            break
        # The holder before us has removed it since it was opened.
        os.close(descriptor)
    # A full disk must not stop a run that is about to make room.
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    return descriptor


def _is_same_file(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(file))
    except FileNotFoundError:
        return False
