"""Arrays that take seconds to make, kept on disk between runs.

They lie in $SDI_GS_CACHE, else in ``sdi-gs/arrays`` in the user's cache folder; an empty SDI_GS_CACHE keeps nothing. A
file's name is the hash of all that its arrays depend on, so that nothing goes stale. Files are written aside and
renamed: any number of processes may use the folder at once. A file that cannot be read is made again, and a folder that
cannot be written costs time, never a run.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import zipfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from sdi_gs.files import user_cache_folder

LARGEST_FOLDER = 512 * 2**20
"""Bytes of all files together; beyond it those that were not used for longest are removed."""
_SUFFIX = ".npz"
_DAMAGED = (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile)
"""What numpy raises for a file that is cut off, overwritten, or gone."""


def cache_folder() -> Path | None:
    """Return the folder of kept arrays, which may not exist; None if nothing is to be kept."""
    chosen = os.environ.get("SDI_GS_CACHE")
    if chosen is None:
        return user_cache_folder() / "sdi-gs" / "arrays"
    return Path(chosen) if chosen else None


def digest_of(texts: Iterable[str], sources: Iterable[Path]) -> str:
    """Return the hash of texts and of the content of source files."""
    digest = hashlib.sha256()
    for part in (*(text.encode() for text in texts), *(path.read_bytes() for path in sources)):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:40]


def kept_arrays(key: str, make: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the float32 arrays of a key: those on disk, or else those that ``make`` returns, which are then kept."""
    folder = cache_folder()
    if folder is None:
        return dict(make())
    path = folder / f"{key}{_SUFFIX}"
    with suppress(*_DAMAGED):
        arrays = _read(path)
        # The latest use, by which the folder is cleared.
        os.utime(path)
        return arrays
    made = dict(make())
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        _write(path, made)
        _clear(folder, keep=path)
    return made


def _read(path: Path) -> dict[str, np.ndarray]:
    arrays = {}
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        for name in {member.partition("/")[0] for member in file.files}:
            shape, bits, values = (file[f"{name}/{part}"] for part in ("shape", "bits", "values"))
            array = np.zeros(tuple(shape), np.float32)
            array.reshape(-1)[np.unpackbits(bits, count=array.size).view(bool)] = values
            arrays[name] = array
    return arrays


def _write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write the arrays without their zeros, of which pictures of one object are mostly made."""
    parts = {}
    for name, array in arrays.items():
        flat = np.ascontiguousarray(array, np.float32).reshape(-1)
        # By their bits: -0.0 is kept.
        present = flat.view(np.uint32) != 0
        parts |= {f"{name}/shape": np.array(array.shape), f"{name}/bits": np.packbits(present)}
        parts[f"{name}/values"] = flat[present]
    aside = path.with_name(f".{secrets.token_hex(8)}{_SUFFIX}")
    try:
        with aside.open("xb") as file:
            np.savez(file, **parts)
        os.replace(aside, path)
    finally:
        with suppress(OSError):
            aside.unlink()


def _clear(folder: Path, *, keep: Path) -> None:
    """Remove the files that were not used for longest until the others are no larger than ``LARGEST_FOLDER``."""
    files = []
    for path in folder.glob(f"*{_SUFFIX}"):
        # Another process may have removed it.
        with suppress(OSError):
            status = path.stat()
            files.append((status.st_mtime_ns, status.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= LARGEST_FOLDER:
            return
        if path != keep:
            with suppress(OSError):
                path.unlink()
            total -= size
