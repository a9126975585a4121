"""docs/architecture.md describes every room of the package, in the order of the layers."""

from __future__ import annotations

import ast
import re

from sources import ROOT

ROW = re.compile(r"^\| ([^|]+) \|", re.MULTILINE)


def described_rooms(page: str) -> list[str]:
    """Return the names in the first column of the page's first table, from top to bottom."""
    table = page[page.index("| room |") :].split("\n\n", maxsplit=1)[0]
    cells = ROW.findall(table)[1:]
    return [name.rstrip("/") for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def layers() -> tuple[tuple[str, ...], ...]:
    """Return the layers that tests/test_layers.py enforces."""
    tree = ast.parse((ROOT / "tests/test_layers.py").read_text())
    [value] = [
        node.value
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "LAYERS" and node.value is not None
    ]
    return ast.literal_eval(value)


def test_every_room_has_a_line_in_the_order_of_the_layers() -> None:
    described = described_rooms((ROOT / "docs/architecture.md").read_text())
    floor_of = {room: floor for floor, layer in enumerate(layers()) for room in layer}
    assert sorted(described) == sorted(floor_of)
    floors = [floor_of[room] for room in described]
    assert floors == sorted(floors)
