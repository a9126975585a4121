"""What holds for the whole code base: its packaging, its configs' documentation, its start-up."""

from __future__ import annotations

import ast
import dataclasses
import shutil
import subprocess
import sys
import tomllib
import typing
import zipfile
from pathlib import Path

import pytest

from sdi_gs import __version__

ROOT = Path(__file__).parents[1]
SOURCES = [file for folder in ("sdi_gs", "viewer", "configs") for file in sorted((ROOT / folder).rglob("*.py"))]
each_source = pytest.mark.parametrize("file", [pytest.param(file, id=str(file.relative_to(ROOT))) for file in SOURCES])

MAX_LINES = 500


@each_source
def test_a_module_says_what_lives_in_it(file: Path) -> None:
    assert ast.get_docstring(ast.parse(file.read_text()))


@each_source
def test_a_module_is_short_enough_to_read(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= MAX_LINES


def global_settings(source: str) -> list[str]:
    """Calls that move to a fixed device or touch a generator that everybody shares."""
    tree = ast.parse(source)
    # gsplat's strategies draw from the global generator; a fork of it is put back afterwards.
    forks = [node for node in ast.walk(tree) if isinstance(node, ast.With) and "fork_rng" in ast.unparse(node.items[0])]
    forked = {id(inner) for fork in forks for inner in ast.walk(fork)}
    names = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call) and id(node) not in forked]
    banned = ("torch.manual_seed", "np.random.seed", "random.seed", "torch.set_default_device")
    return [name for name in names if name.endswith(".cuda") or name in banned]


@each_source
def test_devices_and_seeds_are_nobodys_globals(file: Path) -> None:
    assert global_settings(file.read_text()) == []


def test_a_global_seed_is_caught_unless_it_is_put_back() -> None:
    assert global_settings("torch.manual_seed(0)\nx.to(y).cuda()") == ["torch.manual_seed", "x.to(y).cuda"]
    assert global_settings("with torch.random.fork_rng():\n    torch.manual_seed(0)") == []


def undocumented_fields(source: str) -> list[str]:
    """Frozen config dataclasses without a docstring, and those of their fields that no docstring line follows.

    A field that is a config itself is described by its class.
    """
    missing = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and node.name.endswith("Config") and _is_frozen_dataclass(node):
            if not ast.get_docstring(node):
                missing.append(node.name)
            for statement, after in zip(node.body, [*node.body[1:], None], strict=True):
                is_field = isinstance(statement, ast.AnnAssign)
                if is_field and not ast.unparse(statement.annotation).endswith("Config") and not _is_text(after):
                    missing.append(f"{node.name}.{ast.unparse(statement.target)}")
    return missing


def _is_frozen_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass(" in (text := ast.unparse(d)) and "frozen=True" in text for d in node.decorator_list)


def _is_text(node: ast.stmt | None) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and bool(node.value.value)


@each_source
def test_every_setting_is_documented(file: Path) -> None:
    assert undocumented_fields(file.read_text()) == []


def test_an_undocumented_setting_is_caught() -> None:
    head = "@dataclass(frozen=True, kw_only=True)\nclass AConfig:\n"
    body = "    a: int = 1\n    '''Metres.'''\n    b: int = 2\n    c: BConfig = BConfig()\n"
    assert undocumented_fields(head + body) == ["AConfig", "AConfig.b"]
    assert undocumented_fields(head + "    '''Lengths.'''\n" + body) == ["AConfig.b"]


def test_every_settings_class_of_a_run_is_a_frozen_keyword_only_config() -> None:
    from sdi_gs.settings.run import RunConfig

    waiting: list[type] = [RunConfig]
    seen: set[type] = set()
    while waiting:
        config = waiting.pop()
        seen.add(config)
        hints = typing.get_type_hints(config).values()
        inner = {part for hint in hints for part in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(part)}
        waiting += [part for part in inner if isinstance(part, type) and part not in seen]
    assert len(seen) > 3
    for config in seen:
        params = config.__dataclass_params__  # pyright: ignore[reportAttributeAccessIssue]
        assert config.__name__.endswith("Config")
        assert params.frozen
        assert all(field.kw_only for field in dataclasses.fields(config))


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


@pytest.mark.skipif(not (ROOT / "sdi_gs/commands/main.py").exists(), reason="the command line is not written yet")
@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["priors"]], ids=" ".join)
def test_help_is_shown_without_loading_anything_heavy(tmp_path: Path, arguments: list[str]) -> None:
    command = [sys.executable, "-c", HELP.format(arguments=arguments)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "sdi-gs" in done.stdout


def test_every_package_is_installed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {".".join(init.parent.relative_to(ROOT).parts) for init in (ROOT / "sdi_gs").rglob("__init__.py")}
    for name in ("viewer", "configs"):
        inits = (ROOT / name).rglob("__init__.py")
        found |= {".".join(["sdi_gs", *init.parent.relative_to(ROOT).parts]) for init in inits}
    assert set(settings["packages"]) == found
    assert settings["packages"] == sorted(settings["packages"])


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
    for name in ("sdi_gs", "viewer", "configs"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    weights = tree / "sdi_gs/toybox/weights"
    for name in ("model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors"):
        file = weights / "prior" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    subprocess.run([sys.executable, "-c", BUILD, kind, str(built)], cwd=tree, check=True, capture_output=True)
    [wheel] = built.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    if kind == "wheel":
        carried = {file.relative_to(tree) for file in weights.rglob("*") if file.is_file()}
        assert {file for file in carried if not (installed / file).is_file()} == set()
    # Isolated, so that neither this project's installation nor the working folder can stand in for the one tested.
    command = [sys.executable, "-I", "-S", "-c", IMPORT, str(installed)]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    where = tree if kind == "editable" else installed / "sdi_gs"
    main = tree / "sdi_gs" if kind == "editable" else installed / "sdi_gs"
    expected = [main / "__init__.py", where / "configs/__init__.py", where / "viewer/__init__.py"]
    assert done.stdout.split() == [str(path) for path in expected]
