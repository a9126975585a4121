"""The examples run as they are, and are as short as promised."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run_example(name: str, folder: Path) -> str:
    """Run an example in a folder of its own and return what it prints; warnings are errors."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / name],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def lines_of_code(name: str) -> int:
    """Return the number of an example's lines without blank lines, comments and docstrings."""
    nodes = list(ast.walk(ast.parse((ROOT / "examples" / name).read_text())))
    texts = [node for node in nodes if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)]
    lines = {line for node in nodes if isinstance(node, ast.stmt) for line in (node.lineno, node.end_lineno)}
    return len(lines - {line for text in texts for line in (text.lineno, text.end_lineno)})


@pytest.mark.slow
def test_a_noise_source_of_ones_own_trains(tmp_path: Path) -> None:
    assert lines_of_code("02_custom_noise.py") <= 20
    printed = run_example("02_custom_noise.py", tmp_path).splitlines()
    assert len(printed) == 20
    calls = [int(found[1]) for line in printed if (found := re.search(r"(\d+) calls", line))]
    # The preset's warm-up takes 0.4 of the run; inversion follows.
    assert calls[:8] == [1] * 8
    assert min(calls[8:]) > 1
