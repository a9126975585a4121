"""Time is told by part, and memory stands beside what was counted ahead."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from torch import Tensor

from sdi_gs.doctor import check_cost as module
from sdi_gs.doctor.check_cost import MIB, check_cost
from sdi_gs.doctor.check_throughput import check_throughput
from sdi_gs.doctor.rig import CPU, Rig
from sdi_gs.doctor.rows import Row
from sdi_gs.doctor.stopwatch import Laps, timed_parts
from sdi_gs.priors.catalog import load_prior
from sdi_gs.trainer import Trainer

PARTS = ["render", "encode", "guidance", "backward", "optimise"]


def figure(rows: list[Row], what: str) -> float:
    [row] = [row for row in rows if row.what == what]
    assert row.figure is not None
    return row.figure


@pytest.fixture
def trainer(rig: Rig) -> Trainer:
    config = replace(rig.toybox, prompt="a blue robot")
    return Trainer(config, load_prior(config.prior, config.ideal_prior, device=CPU), device=CPU)


def slowed(function: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    def slow(*arguments: Any, **options: Any) -> Any:
        time.sleep(seconds)
        return function(*arguments, **options)

    return slow


@pytest.mark.parametrize(
    ("owner", "name", "part"),
    [
        ("scene", "render", "render"),
        ("prior", "encode_images", "encode"),
        ("prior", "predict_noise", "guidance"),
        ("scene", "losses", "guidance"),
        ("optimizer", "step", "optimise"),
    ],
)
def test_a_part_that_is_slow_is_told_as_slow(
    owner: str, name: str, part: str, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene: Any = trainer.scene
    target = {"scene": scene, "prior": trainer.prior, "optimizer": scene.optimizers["means"]}[owner]
    trainer.train_step()
    with timed_parts(trainer) as laps:
        laps.start()
        trainer.train_step()
    before = laps.seconds()
    monkeypatch.setattr(target, name, slowed(getattr(target, name), 0.3))
    with timed_parts(trainer) as laps:
        laps.start()
        trainer.train_step()
    after = laps.seconds()
    assert list(before) == list(after) == PARTS
    grown = {name: after[name] - before[name] for name in after}
    assert max(grown, key=lambda name: grown[name]) == part


def test_a_slow_backward_pass_is_told_as_such(trainer: Trainer) -> None:
    trainer.train_step()
    trainer.gaussians.params["means"].register_hook(lambda gradient: time.sleep(0.3))
    with timed_parts(trainer) as laps:
        laps.start()
        trainer.train_step()
    seconds = laps.seconds()
    assert seconds["backward"] >= 0.3
    assert max(seconds, key=lambda name: seconds[name]) == "backward"


def test_timing_changes_neither_the_step_nor_the_trainer(rig: Rig) -> None:
    config = replace(rig.toybox, prompt="a blue robot")
    prior = load_prior(config.prior, config.ideal_prior, device=CPU)
    plain, timed = (Trainer(config, prior, device=CPU) for _ in range(2))
    scene = timed.scene
    with timed_parts(timed) as laps:
        laps.start()
        told = timed.train_step()
    assert (timed.scene, timed.prior) == (scene, prior)
    assert told.losses == plain.train_step().losses


def test_encoding_that_is_repeated_in_the_backward_pass_belongs_to_it(trainer: Trainer) -> None:
    trainer.train_step()
    assert trainer.last_views is not None
    pictures, means = trainer.last_views.rgb, trainer.gaussians.params["means"]
    with timed_parts(trainer) as laps:
        encode = slowed(trainer.prior.encode_images, 0.3)

        def again(_: Tensor) -> None:
            encode(pictures, trainer.device_generator)

        means.register_hook(again)
        laps.start()
        trainer.train_step()
    seconds = laps.seconds()
    assert seconds["backward"] >= 0.3 > seconds["encode"]


def test_what_lies_before_a_start_belongs_to_nobody() -> None:
    laps = Laps(CPU)
    laps.start()
    laps.mark("render")
    time.sleep(0.05)
    laps.start()
    laps.mark("render")
    assert laps.seconds()["render"] < 0.05


def test_both_runs_are_timed_and_memory_is_predicted(rig: Rig, failures: Callable[..., list[str]]) -> None:
    rows = list(check_cost(rig))
    assert failures(rows) == []
    for name in ("toybox-ideal", "sd21-base"):
        for part in [*PARTS, "speed"]:
            assert figure(rows, f"{name}: {part}") > 0.0
    assert figure(rows, "sd21-base: predicted peak memory") > 1.0
    [skipped] = [row for row in rows if row.verdict == "skipped"]
    assert (skipped.what, skipped.note) == (
        "sd21-base: measured peak memory",
        "torch counts the memory of CUDA tensors only",
    )


@pytest.mark.parametrize(("factor", "verdict"), [(1.05, "pass"), (0.85, "fail"), (1.2, "fail")])
def test_memory_far_from_the_prediction_fails(
    factor: float, verdict: str, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = 500 * MIB

    class Counted:
        peak_bytes = counted

    monkeypatch.setattr(module, "_step_rows", lambda *_, **__: iter(()))
    monkeypatch.setattr(module, "count_step", lambda *_: Counted)
    rows = list(check_cost(rig, measure=lambda device: int(factor * counted)))
    [row] = [row for row in rows if row.what == "sd21-base: prediction off"]
    assert row.verdict == verdict
    assert figure(rows, "sd21-base: measured peak memory") == pytest.approx(500 * factor, rel=1e-3)


def test_throughput_is_told_for_every_size(rig: Rig) -> None:
    rows = list(check_throughput(rig))
    assert [row.what for row in rows] == [
        "100 Gaussians at 16 pixels: forward",
        "100 Gaussians at 16 pixels: forward and backward",
    ]
    assert all(row.figure is not None and row.figure > 0.0 for row in rows)
