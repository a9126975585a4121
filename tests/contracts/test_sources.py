"""Devices are chosen by asking what is there and never by catching; ``tests/test_house.py`` bars ``.cuda()``."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [file for folder in ("sdi_gs", "viewer", "configs") for file in sorted((ROOT / folder).rglob("*.py"))]
PACKAGES = ("gsplat", "nerfacc", "tinycudann")
"""Run on CUDA alone, or differently there."""


def caught_choices(source: str) -> list[int]:
    """Lines of ``try`` statements that import a CUDA package, or ask or move something to CUDA."""
    caught = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Try) and node.handlers:
            body = "\n".join(ast.unparse(statement) for statement in node.body)
            if "cuda" in body or any(f"import {package}" in body for package in PACKAGES):
                caught.append(node.lineno)
    return caught


@pytest.mark.parametrize("file", [pytest.param(file, id=file.relative_to(ROOT).as_posix()) for file in SOURCES])
def test_no_device_is_chosen_by_catching(file: Path) -> None:
    assert caught_choices(file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "body", ["import nerfacc", "x = x.to('cuda')", "torch.cuda.current_device()", "import tinycudann as tcnn"]
)
def test_a_planted_choice_is_caught(body: str) -> None:
    assert caught_choices(f"try:\n    {body}\nexcept Exception:\n    pass") == [1]
    assert caught_choices(f"if available:\n    {body}") == []
