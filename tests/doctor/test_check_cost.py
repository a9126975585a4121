"""Time is told by part, and memory stands beside what was counted ahead."""

from __future__ import annotations

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
from sdi_gs.doctor.stopwatch import Laps, Part, timed_parts
from sdi_gs.priors.catalog import load_prior
from sdi_gs.training.trainer import Trainer

PARTS = ["render", "encode", "guidance", "backward", "optimise"]


def figure(rows: list[Row], what: str) -> float:
    [row] = [row for row in rows if row.what == what]
    assert row.figure is not None
    return row.figure


@pytest.fixture
def trainer(rig: Rig) -> Trainer:
    config = replace(rig.toybox, prompt="a blue robot")
    return Trainer(config, load_prior(config.prior, config.ideal_prior, device=CPU), device=CPU)


class Clock:
    """Stands still but for what is said to be slow."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def slowed(self, function: Callable[..., Any], seconds: float) -> Callable[..., Any]:
        def slow(*arguments: Any, **options: Any) -> Any:
            self.now += seconds
            return function(*arguments, **options)

        return slow


@pytest.fixture
def clock() -> Clock:
    return Clock()


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
def test_the_time_of_a_call_goes_to_its_part(
    owner: str, name: str, part: Part, trainer: Trainer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene: Any = trainer.scene
    target = {"scene": scene, "prior": trainer.prior, "optimizer": scene.optimizers["means"]}[owner]
    monkeypatch.setattr(target, name, clock.slowed(getattr(target, name), 1.0))
    with timed_parts(trainer, clock) as laps:
        laps.start()
        trainer.train_step()
    seconds = laps.seconds()
    assert list(seconds) == PARTS
    assert seconds[part] >= 1.0
    assert sum(seconds.values()) == seconds[part]


def test_the_time_of_the_backward_pass_is_its_own(trainer: Trainer, clock: Clock) -> None:
    trainer.gaussians.params["means"].register_hook(clock.slowed(lambda gradient: None, 1.0))
    with timed_parts(trainer, clock) as laps:
        laps.start()
        trainer.train_step()
    assert laps.seconds() == dict.fromkeys(PARTS, 0.0) | {"backward": 1.0}


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


def test_encoding_that_is_repeated_in_the_backward_pass_belongs_to_it(trainer: Trainer, clock: Clock) -> None:
    trainer.train_step()
    assert trainer.last_views is not None
    pictures, means = trainer.last_views.rgb, trainer.gaussians.params["means"]
    with timed_parts(trainer, clock) as laps:
        encode = clock.slowed(trainer.prior.encode_images, 1.0)

        def again(_: Tensor) -> None:
            encode(pictures, trainer.device_generator)

        means.register_hook(again)
        laps.start()
        trainer.train_step()
    assert laps.seconds() == dict.fromkeys(PARTS, 0.0) | {"backward": 1.0}


def test_what_lies_before_a_start_belongs_to_nobody(clock: Clock) -> None:
    laps = Laps(CPU, clock)
    laps.start()
    clock.now = 1.0
    laps.mark("render")
    clock.now = 5.0
    laps.start()
    clock.now = 7.0
    laps.mark("render")
    assert laps.seconds() == {"render": 3.0}


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
