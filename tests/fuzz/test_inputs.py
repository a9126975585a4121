"""Damaged and extreme inputs of every kind: accepted or refused in one line, and nothing lost.

``benchmarks/fuzz.py`` tries many more, with bounds on time and memory.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fuzzing.attempt import attempt, generator_of
from fuzzing.targets import TARGETS, target_named

from sdi_gs.commands.main import main


# What the program says is printed; what libraries warn of is a fault.
@pytest.mark.filterwarnings("default::UserWarning")
@pytest.mark.parametrize("name", TARGETS)
def test_no_input_ends_in_a_traceback_or_loses_a_file(
    tmp_path: Path, name: str, prepared: Callable[[str], Any]
) -> None:
    target, good = target_named(name), prepared(name)
    outcomes = []
    for index in range(target.quick):
        folder = tmp_path / str(index)
        outcomes.append(attempt(target, good, generator_of(name, 0, index), folder, index, main=main))
        shutil.rmtree(folder)
    faults = [outcome for outcome in outcomes if outcome.fault]
    assert not faults, faults[0]
    # Neither the damage nor the program is the same for all of them.
    assert {outcome.code for outcome in outcomes} == {0, 2}
