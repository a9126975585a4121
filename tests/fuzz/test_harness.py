"""The harness itself: planted faults are found, the same number makes the same input, good inputs are accepted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from fuzzing.attempt import Outcome, attempt, generator_of
from fuzzing.targets import TARGETS, Case, Target, target_named
from sources import ROOT


def planted(good: bytes, rng: np.random.Generator, folder: Path) -> Case:
    (folder / "mine").write_bytes(good)
    return Case(arguments=("export", "mine"), about="planted")


def outcome_of(folder: Path, main: Callable[[Sequence[str]], int]) -> Outcome:
    target = Target(prepare=lambda folder: b"good", case=planted, quick=1)
    return attempt(target, target.prepare(folder), generator_of("x", 0, 0), folder / "0", 0, main=main)


def test_what_must_not_happen_is_found(tmp_path: Path) -> None:
    def says(line: str, code: int) -> int:
        print(line, file=sys.stderr)
        return code

    def raises(_: Sequence[str]) -> int:
        raise IndexError("planted")

    def loses(_: Sequence[str]) -> int:
        Path("mine").unlink()
        return 0

    def leaves(_: Sequence[str]) -> int:
        Path(".0123abcd-out.ply").touch()
        return 0

    def warns(_: Sequence[str]) -> int:
        return says(warnings.formatwarning("overflow", RuntimeWarning, "a.py", 1, "x"), 0)

    faults: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
        "raises": (raises, "IndexError: planted"),
        "loses": (loses, "files lost: ['mine']"),
        "overwrites": (lambda _: Path("mine").write_bytes(b"other") * 0, "files lost: ['mine']"),
        "leaves": (leaves, "left over: ['.0123abcd-out.ply']"),
        "warns": (warns, "RuntimeWarning: overflow"),
        "silent": (lambda _: 2, "exit code 2 with 0 lines"),
        "two lines": (lambda _: says("sdi-gs: a\nsdi-gs: b", 2), "exit code 2 with 2 lines"),
        "other code": (lambda _: 1, "exit code 1"),
        "error but 0": (lambda _: says("sdi-gs: cannot read it", 0), "exit code 0 with 1 lines"),
    }
    for name, (main, fault) in faults.items():
        assert fault in outcome_of(tmp_path / name, main).fault, name
    fine: dict[str, Callable[[Sequence[str]], int]] = {
        "accepted": lambda _: says("sdi-gs: warning: 3 of 9 splats left out", 0),
        "refused": lambda _: says("prior toybox\nsdi-gs: cannot read it", 2),
    }
    for name, main in fine.items():
        found = outcome_of(tmp_path / name, main)
        assert (found.fault, found.code) == ("", 0 if name == "accepted" else 2)


@pytest.mark.parametrize("name", TARGETS)
def test_the_same_number_makes_the_same_input(tmp_path: Path, name: str) -> None:
    target = target_named(name)
    good = target.prepare(tmp_path)
    made = []
    for index in (3, 3, 4):
        folder = tmp_path / str(len(made))
        folder.mkdir()
        case = target.case(good, generator_of(name, 0, index), folder)
        files = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        made.append((tuple(case.arguments), case.about, files))
    assert made[0] == made[1]
    assert made[0] != made[2]


@pytest.mark.slow
def test_the_long_version_counts_what_it_tried() -> None:
    command = [sys.executable, str(ROOT / "benchmarks/fuzz.py"), "--kind", "splat", "--count", "6", "--minutes", "5"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["inputs"] == found["splat"]["inputs"] == 6
    assert found["splat"]["accepted"] + found["splat"]["refused"] == 6
    assert found["splat"]["peak_mib"] > 100
