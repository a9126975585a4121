"""The layers of the project, read from the source: which room may import which.

A room is an entry at the top of ``sdi_gs/``: a package or a module. Imports count wherever they are written: at the top
of a module, inside a function, or for type checking only.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pytest
from sources import ROOT, Source, package_sources

LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("settings",),
    ("files",),
    ("splats",),
    ("cameras", "row_groups"),
    ("contracts",),
    ("console",),
    ("rasterize",),
    ("pictures",),
    ("toybox",),
    ("priors",),
    ("guidance",),
    ("representations",),
    ("mesh",),
    ("gsplat_build",),
    ("devices",),
    ("training",),
    ("runs",),
    ("evaluation",),
    ("batch",),
    ("study",),
    ("doctor",),
    ("configs",),
    ("viewer",),
    ("commands",),
    ("__init__", "__main__"),
)
"""From the lowest to the outermost. A room may import itself and the rooms of the layers before its own."""

FOUNDATIONS = {"errors", "settings", "files", "cameras", "row_groups", "contracts"}

ONLY: dict[str, set[str]] = {
    # Plain tensors in and out: no scene, not even a camera. Files, for the cache of kernels that all rooms share.
    "rasterize": {"errors", "files"},
    # A world of its own, which neither learns nor distills.
    "toybox": FOUNDATIONS,
    "priors": FOUNDATIONS | {"toybox"},
    "guidance": FOUNDATIONS,
    "representations": FOUNDATIONS | {"rasterize", "splats"},
    "configs": {"errors", "settings"},
}
"""Rooms that may import fewer than the layers before them."""

IMPORTED_BY: dict[str, set[str]] = {
    "viewer": {"commands"},
    "configs": {"viewer", "commands", "__init__"},
    "commands": {"__main__"},
}
"""Outermost rooms, and who may import them."""

SCORES = ("sdi_gs.toybox.truth", "sdi_gs.toybox.detail", "sdi_gs.toybox.metrics", "sdi_gs.toybox.judge")
"""What a prior must not read: it would learn from its own examination."""

HEAVY = {"torch", "numpy", "numba", "scipy", "diffusers", "transformers", "gsplat", "viser", "PIL", "rich"}
"""What ``settings`` must not import: the command line reads it before it answers ``--help``."""

MOST_ENTRIES = 28
"""At the top of ``sdi_gs/``."""


class Arrow(NamedTuple):
    """One import of one room's code by another."""

    where: str
    """File and line."""
    room: str
    module: str
    """The dotted name that is imported."""

    def __str__(self) -> str:
        return f"{self.where}: {self.room} must not import {self.module}"


def imported_modules(source: Source) -> Iterator[tuple[int, str]]:
    """Yield line and dotted name of every import, wherever it is written."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = source.package.split(".")
            above = above[: len(above) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def room_of(module: str) -> str | None:
    """Return the room that a dotted name belongs to; None for other packages and for the package's version."""
    names = module.split(".")
    # From the repository's root these two can be imported under their folder's name as well.
    if names[0] in ("viewer", "configs"):
        return names[0]
    if names[0] != "sdi_gs" or names[1:] == ["__version__"]:
        return None
    return names[1] if len(names) > 1 and names[1] in ROOMS else "__init__"


ROOMS = {room: floor for floor, layer in enumerate(LAYERS) for room in layer}
"""The floor of each room."""


def is_allowed(room: str, module: str) -> bool:
    """Return whether code of a room may import a module."""
    target = room_of(module)
    if target is None or target == room:
        return True
    if room == "priors" and module.startswith(SCORES):
        return False
    return ROOMS[target] < ROOMS[room] and target in ONLY.get(room, ROOMS) and room in IMPORTED_BY.get(target, ROOMS)


def violations(sources: Iterable[Source]) -> list[Arrow]:
    """Return the forbidden imports."""
    return [
        Arrow(f"{source.path}:{line}", source.room, module)
        for source in sources
        for line, module in imported_modules(source)
        if not is_allowed(source.room, module)
    ]


def circles(sources: Iterable[Source]) -> list[list[str]]:
    """Return the groups of rooms that import each other, directly or through others."""
    reached: dict[str, set[str]] = {}
    for source in sources:
        rooms = {room_of(module) for _, module in imported_modules(source)} - {None, source.room}
        reached.setdefault(source.room, set()).update(map(str, rooms))
    # As many turns as rooms follow the longest way there can be.
    for _ in range(len(reached)):
        for room, rooms in reached.items():
            reached[room] = rooms.union(*(reached.get(other, set()) for other in rooms))
    groups = {tuple(sorted(b for b in reached[a] if a in reached.get(b, set()))) for a in reached if a in reached[a]}
    return sorted(map(list, groups))


def outside_names() -> set[str]:
    """Return the names under which tools, benchmarks, examples and tests' helpers could be imported."""
    folders = ("tools", "benchmarks", "examples", "tests", "tests/support")
    entries = [entry for folder in folders for entry in (ROOT / folder).glob("*")]
    return {*folders} | {entry.stem for entry in entries if entry.suffix == ".py" or (entry / "__init__.py").exists()}


def test_every_entry_of_the_package_has_a_layer_and_every_layer_exists() -> None:
    assert {source.room for source in package_sources()} == set(ROOMS)
    assert all(set(rooms) <= set(ROOMS) for rooms in (ONLY, IMPORTED_BY, *ONLY.values(), *IMPORTED_BY.values()))


def test_the_package_has_few_entries() -> None:
    entries = {entry.name for entry in (ROOT / "sdi_gs").iterdir()} - {"__pycache__", "py.typed"}
    assert len(entries) <= MOST_ENTRIES, sorted(entries)


def test_rooms_import_only_the_layers_before_their_own() -> None:
    found = violations(package_sources())
    assert not found, "\n".join(map(str, found))


def test_no_rooms_import_each_other_in_a_circle() -> None:
    assert circles(package_sources()) == []


def test_settings_import_nothing_heavy() -> None:
    found = [
        f"{source.path}:{line}: {module}"
        for source in package_sources()
        if source.room in ("errors", "settings", "configs")
        for line, module in imported_modules(source)
        if module.split(".")[0] in HEAVY
    ]
    assert not found, "\n".join(found)


def test_the_package_imports_nothing_that_it_does_not_bring() -> None:
    outside = outside_names()
    assert {"memory_counting", "toybox_training", "scored_runs", "conftest"} <= outside
    found = [
        f"{source.path}:{line}: {module}"
        for source in package_sources()
        for line, module in imported_modules(source)
        if module.split(".")[0] in outside
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("room", "text"),
    [
        ("guidance", "from sdi_gs.representations.gaussians import Gaussians"),
        ("representations", "import sdi_gs.guidance"),
        ("representations", "def f():\n    from sdi_gs.guidance import schedule"),
        ("representations", "if TYPE_CHECKING:\n    from sdi_gs.training.trainer import Trainer"),
        ("training", "from sdi_gs.runs.folder import RunFolder"),
        ("training", "def f():\n    from sdi_gs.runs.loading import load_run"),
        ("devices", "from sdi_gs.doctor.diagnosis import diagnose"),
        ("runs", "from sdi_gs.doctor.checks import run_checks"),
        ("training", "from sdi_gs.viewer import app"),
        ("training", "from sdi_gs import viewer"),
        ("training", "import viewer.app"),
        ("runs", "from sdi_gs.configs.presets import PRESETS"),
        ("doctor", "from configs import presets"),
        ("evaluation", "from sdi_gs.commands.main import main"),
        ("viewer", "from sdi_gs.commands.main import main"),
        ("configs", "from sdi_gs.viewer import app"),
        ("configs", "from sdi_gs.runs.folder import RunFolder"),
        ("rasterize", "from sdi_gs.cameras import CameraBatch"),
        ("toybox", "from sdi_gs.guidance.schedule import annealed_timestep"),
        ("priors", "from sdi_gs.toybox.truth import evaluate"),
        ("priors", "from sdi_gs.toybox import judge"),
        ("priors", "from sdi_gs.rasterize import rasterization"),
        ("cameras", "from sdi_gs.row_groups import grouped"),
        ("runs", "from sdi_gs import RunConfig"),
        ("runs", "import sdi_gs"),
    ],
)
def test_a_planted_import_is_caught(room: str, text: str) -> None:
    [found] = violations([Source(f"sdi_gs/{room}/planted.py", text)])
    assert found.room == room


@pytest.mark.parametrize(
    ("room", "text"),
    [
        ("viewer", "from sdi_gs.training.trainer import Trainer"),
        ("commands", "from sdi_gs.viewer.server import serve"),
        ("runs", "from sdi_gs import __version__"),
        ("runs", "import torch"),
        ("priors", "from sdi_gs.toybox.objects import canonical_object"),
        ("guidance", "from . import schedule"),
        ("guidance", "from ..contracts import DiffusionPrior"),
    ],
)
def test_an_import_that_is_allowed_passes(room: str, text: str) -> None:
    assert violations([Source(f"sdi_gs/{room}/planted.py", text)]) == []


def test_a_relative_import_of_another_room_is_caught() -> None:
    [found] = violations([Source("sdi_gs/guidance/planted.py", "from ..training import trainer")])
    assert found.module == "sdi_gs.training.trainer"


def test_a_circle_is_found_through_a_third_room() -> None:
    texts = {
        "runs": "def f():\n    from sdi_gs.doctor import checks",
        "doctor": "if TYPE_CHECKING:\n    from sdi_gs.training import trainer",
        "training": "from sdi_gs.runs import folder",
        "mesh": "from sdi_gs.splats import ply",
    }
    sources = [Source(f"sdi_gs/{room}/planted.py", text) for room, text in texts.items()]
    assert circles(sources) == [["doctor", "runs", "training"]]
    assert circles(sources[1:]) == []
