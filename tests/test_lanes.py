"""The summary's line on slow tests that were left out."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from sources import ROOT

LINE = 'slow tests left out: 1 (pytest -m "" runs all tests)'
TESTS = """
import pytest

@pytest.mark.slow
def test_slow():
    pass

def test_quick():
    pass
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with this project's settings of pytest, its conftest and two tests."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    lines = [f"{name} = {value!r}" for name, value in settings.items() if name in ("addopts", "markers")]
    (tmp_path / "pyproject.toml").write_text("\n".join(["[tool.pytest.ini_options]", *lines]))
    (tmp_path / "conftest.py").write_text((ROOT / "tests/conftest.py").read_text())
    (tmp_path / "test_some.py").write_text(TESTS)
    return tmp_path


def run(project: Path, *options: str) -> str:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *options]
    return subprocess.run(command, cwd=project, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("processes", ["0", pytest.param("2", marks=pytest.mark.slow)])
def test_a_default_run_says_how_many_slow_tests_it_left_out_and_how_to_run_all(project: Path, processes: str) -> None:
    told = run(project, "-n", processes)
    assert LINE in told.splitlines()
    assert "1 passed" in told.splitlines()[-1]


def test_a_run_of_all_tests_says_nothing_of_slow_ones(project: Path) -> None:
    told = run(project, "-m", "")
    assert "left out" not in told and "2 passed" in told
