"""Compiled code of gsplat: found where it fits, handed to gsplat, left alone where it does not fit."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest
import torch

from sdi_gs.rasterize import gsplat_library
from sdi_gs.rasterize.gsplat_library import (
    LIBRARY,
    MODULE,
    covers,
    find_library,
    jit_folder,
    library_folder,
    library_key,
    library_root,
    other_torch,
    use_library,
)

ADA = (8, 9)
SOURCE = """
#include <Python.h>
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "csrc", 0, -1, 0};
PyMODINIT_FUNC PyInit_NAME(void) {
    PyObject *made = PyModule_Create(&module);
    PyModule_AddStringConstant(made, "origin", "compiled ahead of time");
    return made;
}
"""


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is compiled yet, and the card is an RTX 4090."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: ADA)


def compile_module(path: Path, name: str = "csrc") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    source = path.with_suffix(".c")
    source.write_text(SOURCE.replace("NAME", name))
    include = sysconfig.get_path("include")
    subprocess.run(["cc", "-shared", "-fPIC", f"-I{include}", "-o", str(path), str(source)], check=True)
    return path


def jit_build(archs: str, *, torch_folder: Path | None = None) -> Path:
    """What gsplat leaves where it compiles by itself."""
    folder = jit_folder()
    folder.mkdir(parents=True, exist_ok=True)
    include = (torch_folder or Path(torch.__path__[0])) / "include"
    (folder / "build.ninja").write_text(f"cuda_cflags = -isystem {include} {archs}\n")
    library = folder / "gsplat_cuda.so"
    library.touch()
    return library


@pytest.mark.parametrize(
    ("archs", "card", "runs"),
    [
        (["8.9"], (8, 9), True),
        (["8.0"], (8, 9), True),
        (["8.9"], (8, 6), False),
        (["8.9"], (9, 0), False),
        (["8.9+PTX"], (9, 0), True),
        (["9.0+PTX"], (8, 9), False),
        (["7.5", "9.0"], (9, 0), True),
        (["12.0"], (12, 0), True),
        (["9.0a"], (9, 0), True),
        (["12.0a"], (12, 1), False),
        ([], (8, 9), False),
    ],
)
def test_machine_code_runs_on_its_card_and_on_later_minor_versions(
    archs: list[str], card: tuple[int, int], runs: bool
) -> None:
    assert covers(archs, card) is runs


def test_a_library_made_ahead_of_time_is_found_for_the_cards_that_it_covers() -> None:
    assert find_library(ADA) is None
    library = library_folder(["8.0", "8.9"]) / LIBRARY
    library.parent.mkdir(parents=True)
    library.touch()
    assert find_library(ADA) == library
    assert find_library((8, 6)) == library
    assert find_library((9, 0)) is None


def test_a_folder_without_its_library_is_none() -> None:
    library_folder(["8.9"]).mkdir(parents=True)
    assert find_library(ADA) is None


def test_each_torch_and_python_has_its_own() -> None:
    assert torch.__version__ in library_key()
    assert f"{sys.version_info.major}{sys.version_info.minor}" in library_key()
    assert metadata.version("gsplat") in library_key()


def test_what_is_compiled_for_another_torch_is_not_found_but_told() -> None:
    assert other_torch() is None
    other = library_root() / f"gsplat-{metadata.version('gsplat')}-torch-2.7.0+cu126-cpython-311" / "8.9" / LIBRARY
    other.parent.mkdir(parents=True)
    other.touch()
    assert find_library(ADA) is None
    assert other_torch() == "2.7.0+cu126 with cpython-311"
    mine = library_folder(["8.9"]) / LIBRARY
    mine.parent.mkdir(parents=True)
    mine.touch()
    assert other_torch() is None


def test_a_wheel_with_compiled_code_counts_if_it_is_for_this_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packaged = tmp_path / "csrc.so"
    monkeypatch.setattr(gsplat_library, "packaged_library", lambda: packaged)
    monkeypatch.setattr("torch.version.cuda", "13.0")
    version = metadata.version
    tag = f"pt{''.join(torch.__version__.split('.')[:2])}cu130"
    for suffix, found in (("", packaged), (f"+{tag}", packaged), ("+pt24cu121", None)):
        monkeypatch.setattr(gsplat_library.metadata, "version", lambda name, suffix=suffix: version(name) + suffix)
        assert find_library(ADA) == found
    assert other_torch() == "pt24cu121"


def test_what_gsplat_compiled_by_itself_counts_for_this_torch_and_card(tmp_path: Path) -> None:
    library = jit_build("-gencode=arch=compute_89,code=sm_89")
    assert find_library(ADA) == library
    assert find_library((9, 0)) is None
    jit_build("-gencode=arch=compute_80,code=compute_80")
    assert find_library((9, 0)) == library
    jit_build("-gencode=arch=compute_89,code=sm_89", torch_folder=tmp_path / "another")
    assert find_library(ADA) is None


def test_what_gsplat_compiled_before_torch_was_renewed_does_not_count() -> None:
    library = jit_build("-gencode=arch=compute_89,code=sm_89")
    os.utime(library, (1, 1))
    assert find_library(ADA) is None


def test_where_torch_keeps_extensions_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from torch.utils.cpp_extension import get_default_build_root

    monkeypatch.delenv("TORCH_EXTENSIONS_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("torch.version.cuda", "13.0")
    named = Path(f"py{sys.version_info.major}{sys.version_info.minor}_cu130") / "gsplat_cuda"
    assert jit_folder() == Path(get_default_build_root()) / named == tmp_path / "cache/torch_extensions" / named
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert jit_folder() == Path(get_default_build_root()) / named == tmp_path / ".cache/torch_extensions" / named


def test_without_compiled_code_gsplat_is_left_to_itself() -> None:
    assert not use_library()
    assert MODULE not in sys.modules


@pytest.mark.parametrize("made", ["ahead of time", "by gsplat"])
def test_a_library_is_loaded_under_the_name_that_gsplat_imports(made: str) -> None:
    if made == "ahead of time":
        compile_module(library_folder(["8.9"]) / LIBRARY)
    else:
        compile_module(jit_build("code=sm_89"), "gsplat_cuda")
    try:
        assert use_library()
        from gsplat import csrc  # pyright: ignore[reportAttributeAccessIssue]

        assert csrc.origin == "compiled ahead of time"
    finally:
        sys.modules.pop(MODULE, None)


TAKEN = """
from unittest.mock import patch
from sdi_gs.rasterize.gsplat_library import use_library
with patch("torch.cuda.get_device_capability", lambda device: (8, 9)):
    assert use_library()
from gsplat.cuda._backend import _C
print(_C.origin)
"""


@pytest.mark.slow
def test_gsplat_takes_it_and_compiles_nothing() -> None:
    compile_module(library_folder(["8.9"]) / LIBRARY)
    done = subprocess.run([sys.executable, "-c", TAKEN], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("compiled ahead of time")
    assert not (jit_folder() / "build.ninja").exists()


def test_a_library_that_does_not_load_is_an_error_and_not_a_silent_compilation() -> None:
    library = library_folder(["8.9"]) / LIBRARY
    library.parent.mkdir(parents=True)
    library.write_bytes(b"no library")
    with pytest.raises(ImportError):
        use_library()


def test_a_call_that_would_compile_says_so_once() -> None:
    from sdi_gs.rasterize import _prepare_gsplat

    _prepare_gsplat.cache_clear()
    with pytest.warns(UserWarning, match="which takes minutes; sdi-gs doctor --build does it ahead"):
        _prepare_gsplat(torch.device("cuda"))
    _prepare_gsplat(torch.device("cuda"))
    _prepare_gsplat.cache_clear()
