"""Runs that the tests of the command line share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from command_line import QUICK, SMOKE

from sdi_gs.commands.main import main


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of six steps; nobody writes to it."""
    folder = tmp_path_factory.mktemp("cli") / "robot"
    options = ["--steps", "6", "--outputs.checkpoint-every", "3", "--output-dir", str(folder)]
    assert main([*SMOKE, *QUICK, *options]) == 0
    return folder


@pytest.fixture
def stopped_run(run: Path, tmp_path: Path) -> Path:
    """The same run as it is when the power fails after its third step."""
    folder = tmp_path / "stopped"
    shutil.copytree(run, folder)
    shutil.rmtree(folder / "checkpoints/step_000006")
    for path in [*folder.glob("*.p*"), *folder.glob("*.mp4"), *folder.glob("*.json")]:
        path.unlink()
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder
