"""Arrays kept between runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sdi_gs.files import kept_arrays as module
from sdi_gs.files.kept_arrays import cache_folder, digest_of, kept_arrays

PICTURES = np.array([[0.0, -0.0, 1.5], [np.nan, np.inf, 1e-45]], np.float32)

WRITER = """
import sys
import numpy as np
from sdi_gs.files.kept_arrays import kept_arrays
for turn in range(60):
    found = kept_arrays(f"key{turn % 3}", lambda: {"a": np.arange(20_000, dtype=np.float32)})
    assert np.array_equal(found["a"], np.arange(20_000, dtype=np.float32))
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SDI_GS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def made(values: np.ndarray = PICTURES) -> tuple[Callable[[], dict[str, np.ndarray]], list[int]]:
    calls: list[int] = []

    def make() -> dict[str, np.ndarray]:
        calls.append(1)
        return {"a": values, "b": values[:, :0]}

    return make, calls


def test_what_is_kept_comes_back_with_its_bits() -> None:
    make, calls = made()
    first, second = kept_arrays("key", make), kept_arrays("key", make)
    assert len(calls) == 1
    for found in (first, second):
        assert found["a"].tobytes() == PICTURES.tobytes()
        assert found["a"].shape == (2, 3)
        assert found["b"].shape == (2, 0)
    kept_arrays("other", make)
    assert len(calls) == 2


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_a_damaged_file_is_made_again(folder: Path, damage: str) -> None:
    make, calls = made()
    kept_arrays("key", make)
    (file,) = folder.glob("*.npz")
    content = bytearray(file.read_bytes())
    if damage == "changed":
        place = content.index(np.float32(1.5).tobytes())
        content[place] ^= 1
    file.write_bytes({"cut": content[:-30], "changed": content, "empty": b""}[damage])
    assert kept_arrays("key", make)["a"].tobytes() == PICTURES.tobytes()
    assert kept_arrays("key", make)["a"].tobytes() == PICTURES.tobytes()
    assert len(calls) == 2


def test_the_folder_is_bounded_and_keeps_what_was_used_last(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.ones((1, 1000), np.float32)
    make, _ = made(values)
    kept_arrays("probe", make)
    size = (folder / "probe.npz").stat().st_size
    monkeypatch.setattr(module, "LARGEST_FOLDER", 3 * size)
    for number, key in enumerate(["probe", "one", "two"]):
        kept_arrays(key, make)
        os.utime(folder / f"{key}.npz", ns=(number, number))
    kept_arrays("probe", make)
    kept_arrays("three", make)
    assert sorted(path.stem for path in folder.iterdir()) == ["probe", "three", "two"]


def test_a_folder_that_cannot_be_written_costs_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SDI_GS_CACHE", str(tmp_path / "file" / "cache"))
    make, calls = made()
    for _ in range(2):
        assert kept_arrays("key", make)["a"].tobytes() == PICTURES.tobytes()
    assert len(calls) == 2


def test_an_empty_variable_keeps_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDI_GS_CACHE", "")
    make, _ = made()
    kept_arrays("key", make)
    assert cache_folder() is None
    assert not folder.exists()


def test_without_the_variable_the_users_folder_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SDI_GS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "sdi-gs" / "arrays"


def test_processes_that_write_at_once_leave_whole_files(folder: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER]) for _ in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert sorted(path.name for path in folder.iterdir()) == ["key0.npz", "key1.npz", "key2.npz"]


def test_a_digest_follows_texts_and_sources(tmp_path: Path) -> None:
    source = tmp_path / "a.py"
    source.write_text("1")
    digests = {digest_of(["ab", "c"], [source]), digest_of(["a", "bc"], [source])}
    source.write_text("2")
    digests.add(digest_of(["ab", "c"], [source]))
    assert len(digests) == 3
