"""Values in messages: one line, short, and bounded work."""

from __future__ import annotations

import tracemalloc
from datetime import date
from typing import Any

import pytest

from sdi_gs.settings.shown import LONGEST, shown

EXPLODING: Any = "lol"
for _ in range(60):
    # Ten of the same: written out, 10^60 of them.
    EXPLODING = [EXPLODING] * 10

OWN: Any = []
OWN.append(OWN)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.5, "1.5"),
        (None, "None"),
        (True, "True"),
        ("a\x1b[31mb\n", r"'a\x1b[31mb\n'"),
        ((0.0,), "(0.0,)"),
        ([0.0, 1.0], "[0.0, 1.0]"),
        ({"a": 1, 2: "b"}, "{'a': 1, 2: 'b'}"),
        ([1, 2, 3, 4], "[1, 2, 3, ...]"),
        (10**5000, "a number of 16610 bits"),
        (date(2024, 1, 2), "datetime.date(2024, 1, 2)"),
        ([[[[1]]]], "[[[...]]]"),
        (OWN, "[[[...]]]"),
        (EXPLODING, "[[[...], [...], [...], ...], [[...], [...], [...], ...], [[...], [...], [...]..."),
    ],
    ids=lambda value: str(type(value)),
)
def test_values_are_written_as_python_would_in_short(value: Any, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize("value", ["x" * 10**6, [["x" * 10**6] * 3] * 3, {"x" * 10**6: 1}], ids=["text", "list", "key"])
def test_long_values_are_cut(value: Any) -> None:
    tracemalloc.start()
    try:
        text = shown(value)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(text) == LONGEST
    assert text.endswith("...")
    # Written out first and cut then, it would take a megabyte.
    assert peak < 2**17
