"""Helpers to call the command line in tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdi_gs.commands.main import main

SMOKE = ["train", "--preset", "smoke", "--prompt", "a blue robot", "--device", "cpu"]
QUICK = [
    *("--gaussians.num-initial", "200", "--ideal-prior.renders-per-view", "8"),
    *("--ideal-prior.unconditional-renders", "16", "--outputs.turntable-frames", "2"),
]


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must be refused, and return its one-line message."""
    capsys.readouterr()
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    # The chosen prior is announced before the work begins.
    lines = [line for line in said.err.splitlines() if not line.startswith("prior ")]
    assert len(lines) == 1, said.err
    assert lines[0].startswith("sdi-gs: ")
    assert "Traceback" not in said.err
    return lines[0]
