"""The harness itself: planted faults are found, the same number makes the same input, good inputs are accepted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzzing.attempt import Outcome, attempt, generator_of
from fuzzing.tally import Tally, load_tallies, save_tallies, summary_of
from fuzzing.targets import TARGETS, Case, MakeCase, Target, target_named
from sources import ROOT


def planted(good: bytes, rng: np.random.Generator, folder: Path) -> Case:
    (folder / "mine").write_bytes(good)
    return Case(arguments=("export", "mine"), about="planted")


def outcome_of(folder: Path, main: Callable[[Sequence[str]], int], case: MakeCase = planted) -> Outcome:
    target = Target(prepare=lambda folder: b"good", case=case, quick=1)
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


def test_a_file_that_may_change_must_be_there_and_is_as_it_was_after_a_refusal(tmp_path: Path) -> None:
    def rewritable(good: bytes, rng: np.random.Generator, folder: Path) -> Case:
        return replace(planted(good, rng, folder), may_change=("mine",))

    def writes(code: int) -> int:
        Path("mine").write_bytes(b"other")
        if code:
            print("sdi-gs: cannot read it", file=sys.stderr)
        return code

    assert outcome_of(tmp_path / "a", lambda _: writes(0), rewritable).fault == ""
    assert "files lost: ['mine']" in outcome_of(tmp_path / "b", lambda _: writes(2), rewritable).fault
    assert "files lost: ['mine']" in outcome_of(tmp_path / "c", lambda _: Path("mine").unlink() or 0, rewritable).fault


def test_a_log_may_grow_also_before_a_refusal_and_loses_nothing(tmp_path: Path) -> None:
    def logged(good: bytes, rng: np.random.Generator, folder: Path) -> Case:
        return replace(planted(good, rng, folder), may_grow=("mine",))

    def refused_after(write: Callable[[Path], object]) -> int:
        write(Path("mine"))
        print("sdi-gs: not finite in step 4", file=sys.stderr)
        return 2

    def grow(path: Path) -> None:
        path.write_bytes(path.read_bytes() + b"a step")

    assert outcome_of(tmp_path / "a", lambda _: refused_after(grow), logged).fault == ""
    for name, write in {"b": lambda path: path.write_bytes(b"other"), "c": lambda path: path.unlink()}.items():
        assert "files lost: ['mine']" in outcome_of(tmp_path / name, lambda _: refused_after(write), logged).fault  # noqa: B023


def record(index: int, *, fault: str = "", code: int | None = 0, seconds: float = 1.0) -> dict[str, Any]:
    return {"index": index, "fault": fault, "code": code, "seconds": seconds}


def test_counts_go_on_where_an_earlier_call_stopped(tmp_path: Path) -> None:
    file = tmp_path / "tally.json"
    tallies = load_tallies(file, ["ply", "mesh"], seed=3, first=7)
    assert tallies["ply"] == Tally(following=7)
    for one in (record(7), record(8, code=2), record(9, fault="IndexError", code=None), record(10, seconds=21.0)):
        tallies["ply"].add(one)
    tallies["ply"].following = 11
    save_tallies(file, tallies, seed=3)
    again = load_tallies(file, ["splat"], seed=3, first=0)
    assert again == {**tallies, "splat": Tally()}
    found = summary_of(again, seconds=1.2, seed=3)
    assert (found["inputs"], found["ply"]["accepted"], found["ply"]["refused"], found["ply"]["faults"]) == (4, 1, 1, 2)
    assert [fault["fault"] for fault in again["ply"].faults] == ["IndexError", "21 CPU seconds"]
    with pytest.raises(SystemExit, match="seed 3"):
        load_tallies(file, ["ply"], seed=4, first=0)


def test_a_fault_that_was_mended_is_none_any_more_and_another_stays() -> None:
    tally, mended, same = Tally(), Tally(), Tally()
    tally.add(record(0, fault="IndexError", code=None))
    tally.add(record(1, fault="KeyError", code=None))
    mended.add(record(0, code=2))
    same.add(record(1, fault="TypeError", code=None))
    for fault, again in zip(list(tally.faults), (mended, same), strict=True):
        tally.replace_fault(fault, again)
    assert [fault["fault"] for fault in tally.faults] == ["TypeError"]
    assert (tally.inputs, tally.refused, tally.mended) == (2, 1, 1)


@pytest.mark.parametrize("name", TARGETS)
def test_the_same_number_makes_the_same_input(tmp_path: Path, name: str, prepared: Callable[[str], Any]) -> None:
    target, good = target_named(name), prepared(name)
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
def test_the_long_version_counts_what_it_tried(tmp_path: Path) -> None:
    # Good checkpoints come from runs of the program, which prints.
    command = [sys.executable, str(ROOT / "benchmarks/fuzz.py"), "--kind", "splat", "--kind", "checkpoint"]
    command += ["--count", "3", "--minutes", "15", "--tally", str(tmp_path / "tally.json")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for inputs in (3, 6):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout.splitlines()[-1])
        assert found["inputs"] == 2 * inputs
        for kind in ("splat", "checkpoint"):
            assert found[kind]["inputs"] == found[kind]["accepted"] + found[kind]["refused"] == inputs
            assert found[kind]["peak_mib"] > 100
    # A fault that is noted is tried again first, and is none any more.
    noted = json.loads((tmp_path / "tally.json").read_text())
    noted["kinds"]["splat"]["faults"] = [{"index": 3, "fault": "planted"}]
    (tmp_path / "tally.json").write_text(json.dumps(noted))
    done = subprocess.run([*command, "--minutes", "0"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["splat"]["mended"], found["splat"]["inputs"]) == (1, 6)
