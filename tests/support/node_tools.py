"""Programs from npm that read what this project writes; tests of them skip where they are not installed.

``SDI_GS_NODE_MODULES`` names the folder that npm installed them to (``.ci/run`` does): @playcanvas/splat-transform,
gltf-validator, three.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

VARIABLE = "SDI_GS_NODE_MODULES"


def node_module(name: str) -> Path:
    """Return the folder of an npm package; skips the test without it, or without node."""
    folder = Path(os.environ.get(VARIABLE, "none")) / name
    if shutil.which("node") is None or not folder.is_dir():
        pytest.skip(f"needs node, and {name} in the folder that {VARIABLE} names")
    return folder


def version_of(name: str) -> tuple[int, ...]:
    """Return an npm package's version; skips the test as ``node_module``."""
    text = json.loads((node_module(name) / "package.json").read_text())["version"]
    return tuple(int(part) for part in text.split("-")[0].split("."))


def run_node(*arguments: str | Path) -> str:
    """Run node; return what it prints, and fail with it where it fails."""
    done = subprocess.run(["node", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0, done.stderr
    return done.stdout


def splat_transform(source: Path, target: Path, *options: str) -> None:
    """Convert a file of splats with PlayCanvas' program."""
    program = node_module("@playcanvas/splat-transform") / "bin" / "cli.mjs"
    run_node(program, "-w", "-q", "-g", "cpu", *options, source, target)
