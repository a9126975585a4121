"""What holds for the whole code base: its packaging, its version, its start-up."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from setuptools import find_packages
from sources import PACKAGE, ROOT

from sdi_gs import __version__

HELP = """
import sys
from sdi_gs.commands.main import main
sys.argv = ["sdi-gs", *{arguments}]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
heavy = {{"torch", "diffusers", "transformers", "gsplat", "numba", "viser", "scipy"}} & set(sys.modules)
assert not heavy, heavy
"""


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["priors"]], ids=" ".join)
def test_help_is_shown_without_loading_anything_heavy(tmp_path: Path, arguments: list[str]) -> None:
    command = [sys.executable, "-c", HELP.format(arguments=arguments)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "sdi-gs" in done.stdout


def test_every_package_is_installed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    inits = [init.parent.relative_to(ROOT).parts for folder in PACKAGE for init in (ROOT / folder).rglob("__init__.py")]
    packages = {".".join(parts if parts[0] == "sdi_gs" else ("sdi_gs", *parts)) for parts in inits}
    assert set(find_packages(str(ROOT), **settings)) == packages
    assert {"sdi_gs", "sdi_gs.viewer", "sdi_gs.configs", "sdi_gs.rasterize.kernels"} <= packages


def test_the_changelog_begins_with_this_version() -> None:
    headings = [line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## ")]
    assert headings[0].split()[1] == __version__


BUILD = """
import sys
from setuptools import build_meta
print(getattr(build_meta, "build_" + sys.argv[1])(sys.argv[2]))
"""
IMPORT = """
import site, sys
site.addsitedir(sys.argv[1])
import sdi_gs, sdi_gs.configs, sdi_gs.viewer
for module in (sdi_gs, sdi_gs.configs, sdi_gs.viewer):
    print(module.__file__)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_both_ways_of_installing_find_all_packages(tmp_path: Path, kind: str) -> None:
    tree, built, installed = tmp_path / "tree", tmp_path / "built", tmp_path / "installed"
    built.mkdir()
    for name in PACKAGE:
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    # An editable wheel always warns that folders of the package's name go first.
    strict = ["-W", "error"] if kind == "wheel" else []
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, *strict, "-c", BUILD, kind, str(built)]
    done = subprocess.run(command, cwd=tree, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if strict:
        # What distutils logs is no Python warning.
        assert not re.search("warning|deprecat", done.stdout + done.stderr, re.IGNORECASE), done.stderr
    [wheel] = built.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    if kind == "wheel":
        assert missing_files(tree, installed) == set()
    # Isolated, so that neither this project's installation nor the working folder can stand in for the one tested.
    command = [sys.executable, "-I", "-S", "-c", IMPORT, str(installed)]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    home = (tree if kind == "editable" else installed) / "sdi_gs"
    inits = [home / "__init__.py", home / "configs/__init__.py", home / "viewer/__init__.py"]
    assert done.stdout.split() == [str(path) for path in inits]


def missing_files(tree: Path, installed: Path) -> set[str]:
    """Return the package's files, code and data, that are in a tree but not in what was installed from it."""
    files = [file for folder in PACKAGE for file in (tree / folder).rglob("*") if file.is_file()]
    names = [file.relative_to(tree).as_posix() for file in files]
    wanted = [name if name.startswith("sdi_gs/") else f"sdi_gs/{name}" for name in names]
    return {name for name in wanted if not (installed / name).is_file()}
