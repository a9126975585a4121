"""The script that trains toybox's networks, started as the docs do."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from sources import ROOT

pytestmark = pytest.mark.slow

DOCS = ROOT / "docs/reports/toybox-prior.md"


def help_of(*command: str) -> str:
    # A script finds its neighbours in its own folder.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    words = [sys.executable, "tools/train_toybox.py", *command, "--help"]
    done = subprocess.run(
        words, cwd=ROOT, env=environment | {"COLUMNS": "200"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_command_of_the_docs_exists_with_its_options() -> None:
    text = DOCS.read_text(encoding="utf-8").replace("\\\n", " ")
    variables = dict(re.findall(r'^(\w+)="(.*)"$', text, re.MULTILINE))
    lines = [line for line in text.splitlines() if line.startswith(("$train ", "$together "))]
    assert len(lines) > 4
    assert variables["train"] == "python tools/train_toybox.py"
    used: dict[str, set[str]] = {}
    for line in lines:
        words = re.sub(r"\$(\w+)", lambda name: variables[name[1]], line).partition("train_toybox.py")[2].split()
        used.setdefault(words[0], set()).update(word for word in words if word.startswith("--"))
    for command, options in used.items():
        known = help_of(command)
        assert {option for option in options if option not in known} == set(), command
