"""Runs the cases of Triton's kernels in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys

from sources import ROOT

CASES = ROOT / "tests" / "representations" / "ngp" / "triton_cases.py"


def run_triton_cases(*, interpreted: bool) -> None:
    """Run all cases in Triton's interpreter, or compiled on a card; AssertionError with their output if one fails."""
    # Triton reads the variable once, when it is imported.
    environment = os.environ | {"TRITON_INTERPRET": str(int(interpreted))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(CASES)]
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "22 passed" in done.stdout
