"""Who may import whom: the arrows between the parts of the project, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FOUNDATIONS = {
    *("errors", "files", "backgrounds", "camera_config", "cameras", "compute_config", "contracts", "row_groups"),
    "quiet",
}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "files": {"errors"},
    "backgrounds": set(),
    "camera_config": {"errors"},
    "compute_config": set(),
    "cameras": {"camera_config", "errors"},
    "contracts": {"cameras", "compute_config", "errors"},
    "row_groups": set(),
    "quiet": set(),
    # Plain tensors in and out: it knows no scene, not even a camera.
    "rasterize": {"errors"},
    "loss_config": {"errors"},
    "losses": FOUNDATIONS | {"loss_config"},
    # A world of its own, which neither learns nor distills.
    "toybox": FOUNDATIONS,
    "priors": FOUNDATIONS | {"toybox"},
    "guidance": FOUNDATIONS,
    "representations": FOUNDATIONS | {"rasterize"},
}
"""What each lower part may import beside itself; a part that is not named here is above all of these."""

OUTERMOST: dict[str, set[str]] = {
    "__main__": {"cli"},
    "cli": {"viewer", "configs"},
    "viewer": {"configs"},
    "configs": set(),
}
"""What no other part may import, and what of each other they may."""

SCORES = ("sdi_gs.toybox.truth", "sdi_gs.toybox.metrics", "sdi_gs.toybox.judge")
"""What a prior must not look at, lest it learn from its own examination."""


def imported_modules(source: str, package: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import, wherever it stands; ``package`` resolves relative ones."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def part_of(module: str) -> str | None:
    """The part of the project that a dotted name belongs to; None for other packages and ``sdi_gs`` itself."""
    names = module.split(".")
    # From the repository's root these two can be imported under their folder's name as well.
    if names[0] in ("viewer", "configs"):
        return names[0]
    if names[0] != "sdi_gs" or len(names) == 1 or names[1].startswith("__"):
        return None
    return names[1]


def is_allowed(part: str, module: str) -> bool:
    """Whether code of a part may import a module."""
    target = part_of(module)
    if target is None or target == part:
        return True
    if part in OUTERMOST:
        return target not in OUTERMOST or target in OUTERMOST[part]
    if target in OUTERMOST:
        return False
    if part in MAY_IMPORT:
        return target in MAY_IMPORT[part] and not (part == "priors" and module.startswith(SCORES))
    return True


def violations(source: str, part: str, package: str = "sdi_gs") -> list[str]:
    """The forbidden imports of a file."""
    return [
        f"line {line}: {part} must not import {module}"
        for line, module in imported_modules(source, package)
        if not is_allowed(part, module)
    ]


def project_files() -> list[tuple[Path, str, str]]:
    """Every module's file, its part and its package."""
    found = []
    for folder, name in ((ROOT / "sdi_gs", "sdi_gs"), (ROOT / "viewer", "viewer"), (ROOT / "configs", "configs")):
        for file in sorted(folder.rglob("*.py")):
            inner = file.relative_to(folder).with_suffix("").parts
            package = ".".join([name if name == "sdi_gs" else f"sdi_gs.{name}", *inner[:-1]])
            found.append((file, name if name != "sdi_gs" else inner[0], package))
    return found


@pytest.mark.parametrize(
    ("file", "part", "package"),
    [pytest.param(*row, id=row[0].relative_to(ROOT).as_posix()) for row in project_files()],
)
def test_imports_follow_the_arrows(file: Path, part: str, package: str) -> None:
    assert violations(file.read_text(), part, package) == []


def test_every_part_with_rules_exists() -> None:
    parts = {part for _, part, _ in project_files()}
    assert set(MAY_IMPORT) - parts == set()
    assert {"cli", "viewer", "configs", "trainer", "export"} <= parts


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("guidance", "from sdi_gs.representations.gaussians import Gaussians"),
        ("representations", "import sdi_gs.guidance"),
        ("representations", "def f():\n    from sdi_gs.guidance import schedule"),
        ("trainer", "from sdi_gs.viewer import app"),
        ("trainer", "from sdi_gs import viewer"),
        ("trainer", "import viewer.app"),
        ("run_config", "from sdi_gs.configs.presets import PRESETS"),
        ("run_config", "from configs import presets"),
        ("export", "from sdi_gs.commands.main import main"),
        ("viewer", "from sdi_gs.commands.main import main"),
        ("configs", "from sdi_gs.viewer import app"),
        ("rasterize", "from sdi_gs.cameras import CameraBatch"),
        ("rasterize", "from ..cameras import CameraBatch"),
        ("toybox", "from sdi_gs.training.trainer import Trainer"),
        ("toybox", "import torch, sdi_gs.guidance.schedule as schedule"),
        ("priors", "from sdi_gs.toybox.truth import judge"),
        ("priors", "from sdi_gs.toybox import truth"),
        ("priors", "from sdi_gs.toybox.judge import load_judge"),
        ("guidance", "from sdi_gs.training.trainer import Trainer"),
        ("contracts", "if TYPE_CHECKING:\n    from sdi_gs.training.trainer import Trainer"),
    ],
)
def test_a_planted_violation_is_caught(part: str, source: str) -> None:
    assert len(violations(source, part, f"sdi_gs.{part}")) == 1


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("cli", "from sdi_gs.viewer import app\nfrom sdi_gs.configs import presets\nimport sdi_gs.training.trainer"),
        ("trainer", "from sdi_gs.guidance import schedule\nfrom sdi_gs.representations import gaussians"),
        ("rasterize", "from sdi_gs.errors import UserError\nfrom sdi_gs.rasterize.kernels import simd"),
        ("rasterize", "from .kernels import simd\nfrom . import threads"),
        ("priors", "from sdi_gs.toybox.renderer import render_scenes"),
        ("run", "from sdi_gs import __version__\nimport sdi_gs"),
        ("configs", "from sdi_gs.settings.run import RunConfig"),
    ],
)
def test_a_proper_import_passes(part: str, source: str) -> None:
    assert violations(source, part, f"sdi_gs.{part}") == []
