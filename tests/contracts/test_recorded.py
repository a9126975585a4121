"""Recorded signatures say where they come from, and are those of the package where it is installed."""

from __future__ import annotations

import inspect
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

RECORDED = Path(__file__).parent / "recorded"


@pytest.mark.parametrize("file", sorted(RECORDED.glob("*.json")), ids=lambda file: file.stem)
def test_a_record_names_its_package_source_and_version(file: Path) -> None:
    record = json.loads(file.read_text(encoding="utf-8"))
    assert record["package"] == file.stem and record["signatures"]
    assert any(mark in record["source"] for mark in (" at ", "0.5.3"))


@pytest.mark.gpu
@pytest.mark.parametrize("file", sorted(RECORDED.glob("*.json")), ids=lambda file: file.stem)
def test_the_installed_package_has_the_recorded_signatures(file: Path) -> None:
    record = json.loads(file.read_text(encoding="utf-8"))
    if find_spec(record["package"]) is None:
        pytest.skip(f"{record['package']} is not installed")
    package: Any = __import__(record["package"])
    for name, text in record["signatures"].items():
        found = package
        for part in name.split("."):
            found = getattr(found, part)
        parameters = inspect.signature(found).parameters.values()
        plain = [p.replace(annotation=inspect.Parameter.empty) for p in parameters]
        assert str(inspect.Signature(plain)) == text
