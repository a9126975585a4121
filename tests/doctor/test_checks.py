"""Checks are run one by one, and one that breaks takes no other with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import torch

from sdi_gs.doctor.check_setup import CheckSetup
from sdi_gs.doctor.checks import Check, check_of, run_checks
from sdi_gs.doctor.rows import Row, at_most
from sdi_gs.settings.check_names import CHECK_NAMES, SUMMARIES, CheckName


def fine(setup: CheckSetup) -> Iterator[Row]:
    yield at_most("it", 0.5, 1.0)


def too_large(setup: CheckSetup) -> Iterator[Row]:
    yield at_most("first", 0.5, 1.0)
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nGPU 0 has little.")


def not_built(setup: CheckSetup) -> Iterator[Row]:
    raise AttributeError("'NoneType' object has no attribute 'CameraModelType'")
    yield


def check_named(name: CheckName) -> Check:
    return {"field": too_large, "growth": not_built}.get(name, fine)


def test_a_check_that_breaks_fails_in_one_line_and_the_others_go_on(setup: CheckSetup) -> None:
    said: list[str] = []
    results = run_checks(setup, ("rasterizer", "field", "growth", "cost"), say=said.append, check_named=check_named)
    assert [(result.name, result.passed) for result in results] == [
        ("rasterizer", True),
        ("field", False),
        ("growth", False),
        ("cost", True),
    ]
    first, broken = results[1].rows
    assert (first.what, first.verdict) == ("first", "pass"), "what was found before it broke is kept"
    assert broken.note == "OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB"
    assert results[1].trace is not None and "too_large" in results[1].trace
    assert results[2].rows[0].note.startswith("AttributeError: 'NoneType' object")
    assert said[1] == f"check 2 of 4, field: {SUMMARIES['field']}"


def test_every_name_has_a_check_and_a_line() -> None:
    assert get_args(CheckName) == CHECK_NAMES == tuple(SUMMARIES)
    assert len({check_of(name) for name in CHECK_NAMES}) == len(CHECK_NAMES)
