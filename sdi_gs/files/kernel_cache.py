"""Compiled kernels, kept on disk where that is possible: the one place that decides it, for the kernels of every room.

numba keeps machine code in NUMBA_CACHE_DIR if it is set, else beside the source, else in the user's cache folder. In
a container none of them may be writable; then every process compiles again, and one line reports it. A folder that
fills up later, and files that a power cut damaged, cost the same and never a run. What is kept holds for the text of
the kernel's file and of all that it imports from this package: numba itself would look at the time and size of the
first alone, and go on with constants and functions that have changed elsewhere. Processes that compile at once take
turns: numba writes the list of what it keeps before the code itself, and two could give one name to different code.
"""

from __future__ import annotations

import fcntl
import hashlib
import inspect
import logging
import os
import pickle
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from numba import njit
from numba.core.caching import FunctionCache, IndexDataCacheFile, NullCache
from numba.np import linalg

_DAMAGED = (OSError, EOFError, pickle.UnpicklingError, ValueError, ImportError, AttributeError, IndexError, KeyError)
"""What reading a file of numba's raises that is cut off, overwritten, from another library's version, or forbidden."""
LOCK = "kernels.lock"
"""File in a cache's folder by which processes take turns."""
LOOKS, SECONDS_BETWEEN_LOOKS = 1000, 0.01
"""How long a turn is waited for: a process that holds it for longer than it writes a file stands still."""
_FIX = "each start takes about a minute longer; set NUMBA_CACHE_DIR to a folder of yours"

_ROOT = Path(__file__).parents[2]
"""The folder that holds this package."""
_IMPORT = re.compile(r"^(?:from|import) (sdi_gs(?:\.\w+)*)(?: import (\([^)]*|.*))?", re.MULTILINE)
"""An import that runs with its module: one within a block is for type checkers or for later."""

_log = logging.getLogger(__name__)


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that compiles a function on its first use, with numba's options.

    The machine code is kept on disk if any of numba's folders takes it.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher: Any = njit(**options)(function)
        # numba's own ``cache=True`` makes its cache here too, but refuses to go on without a folder.
        dispatcher._cache = _cache_of(function)
        return dispatcher

    return decorate


def is_compiled(kernel: Any) -> bool:
    """Return whether a kernel's machine code exists, in this process or in the cache on disk."""
    return bool(kernel.overloads) or kernel._cache.holds_any()


def is_kept(kernel: Any) -> bool:
    """Return whether there is a folder for a kernel's machine code."""
    return kernel.stats.cache_path is not None


def _cache_of(function: Callable[..., Any]) -> NullCache | FunctionCache:
    try:
        return _KeptIfPossible(function)
    except RuntimeError as error:
        if "no locator available" not in str(error):
            raise
        return _KeptNowhere()


class _KeptNowhere(NullCache):
    """A cache without a folder."""

    def holds_any(self) -> bool:
        """Return False."""
        return False

    def save_overload(self, sig: Any, cres: Any) -> None:
        """Keep nothing, and report it once."""
        _report(f"no folder takes the compiled CPU kernels (a home or an installation that is read-only): {_FIX}")


class _KeptIfPossible(FunctionCache):
    """numba's cache by the content of sources, without its errors of reading and writing."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file = IndexDataCacheFile(
            cache_path=self._cache_path,
            filename_base=self._impl.filename_base,
            source_stamp=sources_digest(Path(inspect.getfile(function))),
        )

    def holds_any(self) -> bool:
        """Return whether machine code of these sources is kept."""
        try:
            return bool(self._cache_file._load_index())
        except _DAMAGED:
            return False

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return what is kept for a signature; None also where it cannot be read, which empties the cache."""
        with _turn(self.cache_path, fcntl.LOCK_SH):
            try:
                return super().load_overload(sig, target_context)
            except _DAMAGED:
                # The next save would read the damaged index again.
                with suppress(OSError):
                    self.flush()
                return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a compiled function; report once where the disk does not take it."""
        try:
            # There, the first time, only now.
            self._impl.locator.ensure_cache_path()
            with _turn(self.cache_path, fcntl.LOCK_EX):
                super().save_overload(sig, data)
        except _DAMAGED as error:
            self.disable()
            reason = getattr(error, "strerror", None) or str(error)
            _report(f"{self.cache_path} does not take the compiled CPU kernels ({reason}): {_FIX}")


@contextmanager
def _turn(folder: str, kind: int) -> Iterator[None]:
    """Hold a folder of kernels to read it with others (``LOCK_SH``) or to write to it alone, where it takes a lock."""
    try:
        descriptor = os.open(os.path.join(folder, LOCK), os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        # Without a folder there is nothing to read, and in one that is read-only nobody writes.
        yield
        return
    try:
        for _ in range(LOOKS):
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(SECONDS_BETWEEN_LOOKS)
            except OSError:
                # Some shared folders have no locks.
                break
            else:
                break
        yield
    finally:
        os.close(descriptor)


@cache
def import_array_functions() -> None:
    """Import numba's functions of arrays, as its first kernel does, without scipy's linear algebra and without cffi.

    They ask for the first on import, which takes as long as all of numba, and need it for ``np.cov`` and
    ``np.corrcoef`` alone. Kernels of this process then lack these two, and functions of cffi: for a program whose
    kernels are all ours, not for a library.
    """
    wanted = linalg.ensure_blas

    def refuse() -> None:
        raise ImportError

    linalg.ensure_blas = refuse
    try:
        import_module("numba.np.arraymath")
    finally:
        linalg.ensure_blas = wanted
    if "cffi" not in sys.modules:
        # numba does without where it is not installed, and takes notice of that when this module is imported.
        sys.modules["cffi"] = None  # pyright: ignore[reportArgumentType]
        try:
            import_module("numba.core.typing.cffi_utils")
        finally:
            del sys.modules["cffi"]


@cache
def sources_digest(path: Path) -> str:
    """Return a digest of a module's text and of the texts of this package that its import reads."""
    texts: dict[Path, bytes] = {}
    waiting = [path]
    while waiting:
        source = waiting.pop()
        if source not in texts and source.is_file():
            texts[source] = source.read_bytes()
            waiting += _imported(texts[source].decode(errors="replace"))
    digest = hashlib.sha256()
    for text in sorted(hashlib.sha256(text).digest() for text in texts.values()):
        digest.update(text)
    return digest.hexdigest()


def _imported(text: str) -> list[Path]:
    """Return the files that the modules named in a text's imports may lie in; a name can be a module or a value."""
    files = []
    for module, names in _IMPORT.findall(text):
        folder = _ROOT.joinpath(*module.split("."))
        files += [folder.with_suffix(".py"), folder / "__init__.py"]
        files += [folder / f"{name}.py" for name in re.findall(r"\w+", names)]
    return files


@cache
def _report(text: str) -> None:
    """Print one line, once per process."""
    _log.warning(text)
