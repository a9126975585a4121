"""Where compiled kernels are kept, and that a machine that keeps none costs time and nothing else."""

from __future__ import annotations

import ast
import errno
import fcntl
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from numba.core import caching, config
from sources import ROOT, package_sources

from sdi_gs.files import kernel_cache, user_cache_folder
from sdi_gs.files.kernel_cache import compiled, is_compiled, is_kept


def _double(value: float) -> float:
    return 2.0 * value


def _triple(value: float) -> float:
    return 3.0 * value


def doubling() -> Any:
    """Return a kernel as a process that starts afresh has it."""
    return compiled(nogil=True)(_double)


@pytest.fixture
def writable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """The folders that take numba's files; at first the user's cache, and not the one beside the sources."""
    folders = [tmp_path]
    ensure = caching._CacheLocator.ensure_cache_path

    def ensure_if_writable(self: Any) -> None:
        if not any(Path(self.get_cache_path()).is_relative_to(folder) for folder in folders):
            raise OSError("Read-only file system")
        ensure(self)

    monkeypatch.setattr(caching._CacheLocator, "ensure_cache_path", ensure_if_writable)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(config, "CACHE_DIR", "")
    kernel_cache._report.cache_clear()
    return folders


def test_a_read_only_install_keeps_its_kernels_in_the_users_cache(writable: list[Path]) -> None:
    kernel = doubling()
    assert is_kept(kernel) and not is_compiled(kernel)
    assert kernel(2.0) == 4.0
    assert list(writable[0].rglob("test_kernel_cache._double-*.nbc"))
    # A process that starts afresh finds it.
    again = doubling()
    assert not again.overloads and is_compiled(again)
    assert again(2.0) == 4.0 and sum(again.stats.cache_hits.values()) == 1


def test_without_any_folder_kernels_work_and_one_line_reports_it(
    writable: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    writable.clear()
    kernels = [doubling(), compiled(nogil=True, inline="always")(_triple)]
    assert not any(is_compiled(kernel) or is_kept(kernel) for kernel in kernels)
    with caplog.at_level(logging.WARNING):
        assert [kernel(2.0) for kernel in kernels] == [4.0, 6.0]
    assert all(map(is_compiled, kernels))
    [line] = caplog.messages
    assert line.startswith("no folder takes the compiled CPU kernels")
    assert line.endswith("set NUMBA_CACHE_DIR to a folder of yours")


def test_a_disk_that_fills_up_while_kernels_are_compiled_ends_nothing(
    writable: list[Path], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(caching.IndexDataCacheFile, "_save_data", full)
    kernel = doubling()
    with caplog.at_level(logging.WARNING):
        assert kernel(2.0) == 4.0
        assert kernel(2) == 4
    [line] = caplog.messages
    assert "does not take the compiled CPU kernels (No space left on device)" in line


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize(
    "damage",
    [lambda content: b"", lambda content: bytes(len(content)), lambda content: content[: len(content) // 2]],
    ids=["empty", "zeros", "half"],
)
def test_a_file_that_a_power_cut_damaged_is_made_anew(
    writable: list[Path], suffix: str, damage: Callable[[bytes], bytes]
) -> None:
    assert doubling()(2.0) == 4.0
    [file] = writable[0].rglob(f"test_kernel_cache._double-*.{suffix}")
    file.write_bytes(damage(file.read_bytes()))
    assert doubling()(2.0) == 4.0
    # It was written again, and is found by the next process.
    again = doubling()
    assert again(2.0) == 4.0 and sum(again.stats.cache_hits.values()) == 1


def test_two_programs_that_compile_at_once_both_keep_their_code(
    writable: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def saving(value: float) -> Callable[[], None]:
        """Keep the code for a type of values, as a process of its own has compiled it."""
        kernel = doubling()
        kernel._cache.disable()
        kernel(value)
        kernel._cache.enable()
        [(signature, code)] = kernel.overloads.items()
        return lambda: kernel._cache.save_overload(signature, code)

    first, second = saving(2.0), saving(2)
    is_over_or_waits = threading.Event()
    other = threading.Thread(target=lambda: (second(), is_over_or_waits.set()))
    load_index, flock = caching.IndexDataCacheFile._load_index, fcntl.flock

    def with_the_other_amid(self: Any) -> Any:
        kept = load_index(self)
        if threading.current_thread() is not other and not other.ident:
            other.start()
            assert is_over_or_waits.wait(300.0)
        return kept

    def taken(descriptor: int, operation: int) -> None:
        try:
            flock(descriptor, operation)
        except BlockingIOError:
            is_over_or_waits.set()
            raise

    monkeypatch.setattr(caching.IndexDataCacheFile, "_load_index", with_the_other_amid)
    monkeypatch.setattr(fcntl, "flock", taken)
    first()
    other.join()
    again = doubling()
    assert (again(2.5), again(2)) == (5.0, 4.0)
    assert sum(again.stats.cache_hits.values()) == 2 and not again.stats.cache_misses
    assert [str(code.signature.args[0]) for code in again.overloads.values()] == ["float64", "int64"]


SCALED = """
from sdi_gs.files.kernel_cache import compiled, is_compiled
from sdi_gs.part.numbers import (  # the text of a comment is text too
    FACTOR,
)

@compiled(nogil=True)
def scaled(value):
    return FACTOR * value

if __name__ == "__main__":
    print(is_compiled(scaled), scaled(2.0), sum(scaled.stats.cache_hits.values()))
"""


def test_what_a_kernel_imports_belongs_to_it(tmp_path: Path) -> None:
    package = tmp_path / "sdi_gs"
    shutil.copytree(ROOT / "sdi_gs/files", package / "files", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "sdi_gs/settings", package / "settings", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "sdi_gs/errors.py", package)
    # A package without one would come after an installed one.
    (package / "__init__.py").touch()
    (package / "part").mkdir()
    (package / "part/numbers.py").write_text("from sdi_gs.part.more import FACTOR\n")
    (package / "part/scaled.py").write_text(SCALED)
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}

    def run_with(factor: float) -> str:
        source = package / "part/more.py"
        source.write_text(f"FACTOR = {factor}\n")
        # As from an archive, and as after a copy: neither time says what is new.
        os.utime(source, (0, 0))
        (package / "part/scaled.py").touch()
        command = [sys.executable, "-m", "sdi_gs.part.scaled"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    assert run_with(3.0) == "False 6.0 0"
    assert run_with(3.0) == "True 6.0 1"
    assert run_with(5.0) == "False 10.0 0"


def test_every_module_of_kernels_is_found_from_those_that_use_it() -> None:
    # Of the package that is imported, installed or not.
    kernels = Path(kernel_cache.__file__).parents[1] / "rasterize/kernels"
    digests = {kernel_cache.sources_digest(path) for path in kernels.glob("*.py")}
    assert len(digests) == len(list(kernels.glob("*.py")))
    found, waiting = set(), [kernels / "compositing.py", kernels / "compositing_backward.py"]
    while waiting:
        source = waiting.pop()
        if source.is_file() and source not in found:
            found.add(source)
            waiting += kernel_cache._imported(source.read_text())
    others = {"binning.py", "projection_backward.py", "finite.py", "__init__.py"}
    assert {path for path in kernels.glob("*.py") if path.name not in others} <= found


def test_one_place_decides_for_the_kernels_of_every_room() -> None:
    callers = set()
    for source in package_sources():
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ImportFrom) and node.module == "numba":
                names = {alias.name for alias in node.names}
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("numba", "nb"):
                names = {node.attr}
            else:
                names = set[str]()
            if names & {"jit", "njit", "vectorize", "guvectorize", "stencil", "cfunc"}:
                callers.add(source.path)
    assert callers == {"sdi_gs/files/kernel_cache.py"}


def test_a_user_without_a_home_has_a_cache_folder_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert user_cache_folder() == Path.home() / ".cache"
    monkeypatch.setattr(Path, "home", no_home)
    assert user_cache_folder() == Path("/nonexistent/.cache")
    monkeypatch.setenv("XDG_CACHE_HOME", "/scratch")
    assert user_cache_folder() == Path("/scratch")


WITHOUT_SCIPY = """
import sys
import numba, numpy as np
from sdi_gs.files.kernel_cache import import_array_functions
import_array_functions()
assert "numba.np.arraymath" in sys.modules and "scipy.linalg" not in sys.modules
product = numba.njit(lambda left, right: np.dot(left, right))(np.eye(2), np.full((2, 2), 3.0))
assert (product == 3.0).all() and "scipy.linalg" in sys.modules
"""


WITHOUT_CFFI = """
import sys
import numba, numpy as np
from sdi_gs.files.kernel_cache import import_array_functions
import_array_functions()
assert numba.njit(lambda values: values.sum())(np.ones(3)) == 3.0
assert "cffi" not in sys.modules and "numba.core.typing.cffi_utils" in sys.modules
import cffi
"""


def test_cffi_is_left_out_and_can_be_imported_later() -> None:
    pytest.importorskip("cffi")
    subprocess.run([sys.executable, "-c", WITHOUT_CFFI], check=True)


def test_scipys_linear_algebra_is_imported_only_for_kernels_that_use_it() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_SCIPY], check=True)


IN_ANOTHER_PROGRAM = """
import numba, numpy as np, torch
from sdi_gs.representations.gaussian_losses import needle_loss
needle_loss(torch.zeros(1, 3), 2.0)
assert numba.njit(lambda values: np.cov(values))(np.eye(2)).shape == (2, 2)
"""


def test_kernels_leave_numba_whole_in_another_program() -> None:
    subprocess.run([sys.executable, "-c", IN_ANOTHER_PROGRAM], check=True)
