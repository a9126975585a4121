"""Check "cost": the time of each part of a step, and peak memory beside the shipped prediction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from torch import Tensor

from sdi_gs.doctor import check_cost as module
from sdi_gs.doctor.check_cost import MIB, check_cost, memory_rows
from sdi_gs.doctor.check_setup import CPU, CheckSetup
from sdi_gs.doctor.check_throughput import check_throughput
from sdi_gs.doctor.rows import Row
from sdi_gs.doctor.sd21_models import load_sd21, weights_at_hand
from sdi_gs.doctor.stopwatch import Part, Stopwatch, timed_parts
from sdi_gs.priors.catalog import load_prior
from sdi_gs.representations.gaussians import Gaussians
from sdi_gs.settings.run import RunConfig
from sdi_gs.training.trainer import Trainer

PARTS = ["render", "encode", "guidance", "backward", "optimise"]


def gaussians_of(trainer: Trainer) -> Gaussians:
    assert isinstance(trainer.scene.representation, Gaussians)
    return trainer.scene.representation


def figure(rows: list[Row], what: str) -> float:
    [row] = [row for row in rows if row.what == what]
    assert row.figure is not None
    return row.figure


@pytest.fixture
def trainer(setup: CheckSetup) -> Trainer:
    config = replace(setup.toybox, prompt="a blue robot")
    return Trainer(config, load_prior(config, device=CPU), device=CPU)


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
    with timed_parts(trainer, clock) as stopwatch:
        stopwatch.start()
        trainer.train_step()
    seconds = stopwatch.seconds()
    assert list(seconds) == PARTS
    assert seconds[part] >= 1.0
    assert sum(seconds.values()) == seconds[part]


def test_the_time_of_the_backward_pass_is_its_own(trainer: Trainer, clock: Clock) -> None:
    gaussians_of(trainer).params["means"].register_hook(clock.slowed(lambda gradient: None, 1.0))
    with timed_parts(trainer, clock) as stopwatch:
        stopwatch.start()
        trainer.train_step()
    assert stopwatch.seconds() == dict.fromkeys(PARTS, 0.0) | {"backward": 1.0}


def test_timing_changes_neither_the_step_nor_the_trainer(setup: CheckSetup) -> None:
    config = replace(setup.toybox, prompt="a blue robot")
    prior = load_prior(config, device=CPU)
    plain, timed = (Trainer(config, prior, device=CPU) for _ in range(2))
    scene = timed.scene
    with timed_parts(timed) as stopwatch:
        stopwatch.start()
        told = timed.train_step()
    assert (timed.scene, timed.prior) == (scene, prior)
    assert told.losses == plain.train_step().losses


def test_encoding_that_is_repeated_in_the_backward_pass_belongs_to_it(trainer: Trainer, clock: Clock) -> None:
    trainer.train_step()
    assert trainer.last_views is not None
    pictures, means = trainer.last_views.rgb, gaussians_of(trainer).params["means"]
    with timed_parts(trainer, clock) as stopwatch:
        encode = clock.slowed(trainer.prior.encode_images, 1.0)

        def again(_: Tensor) -> None:
            encode(pictures, trainer.device_generator)

        means.register_hook(again)
        stopwatch.start()
        trainer.train_step()
    assert stopwatch.seconds() == dict.fromkeys(PARTS, 0.0) | {"backward": 1.0}


def test_what_lies_before_a_start_belongs_to_nobody(clock: Clock) -> None:
    stopwatch = Stopwatch(CPU, clock)
    stopwatch.start()
    clock.now = 1.0
    stopwatch.mark("render")
    clock.now = 5.0
    stopwatch.start()
    clock.now = 7.0
    stopwatch.mark("render")
    assert stopwatch.seconds() == {"render": 3.0}


@pytest.mark.slow
def test_both_runs_are_timed_and_a_cpus_memory_is_skipped(
    setup: CheckSetup, failures: Callable[..., list[str]]
) -> None:
    rows = list(check_cost(setup))
    assert failures(rows) == []
    for name in ("toybox-ideal", "sd21-base"):
        for part in [*PARTS, "speed"]:
            assert figure(rows, f"{name}: {part}") > 0.0
    [skipped] = [row for row in rows if row.verdict == "skipped"]
    assert (skipped.what, skipped.note) == (
        "sd21-base: measured peak memory",
        "torch counts the memory of CUDA tensors only",
    )


@pytest.mark.parametrize(("factor", "verdict"), [(1.05, "pass"), (0.85, "fail"), (1.2, "fail")])
def test_memory_far_from_the_prediction_fails(factor: float, verdict: str) -> None:
    rows = list(memory_rows(predicted=500 * MIB, measured=int(factor * 500 * MIB)))
    [row] = [row for row in rows if row.what == "sd21-base: prediction off"]
    assert row.verdict == verdict
    assert figure(rows, "sd21-base: predicted peak memory") == 500
    assert figure(rows, "sd21-base: measured peak memory") == pytest.approx(500 * factor, rel=1e-3)


def test_without_a_prediction_memory_is_shown_without_a_verdict() -> None:
    [row] = memory_rows(predicted=None, measured=500 * MIB)
    assert (row.what, row.verdict, row.figure) == ("sd21-base: measured peak memory", "shown", 500)
    assert row.note == "no prediction for these settings"


@pytest.mark.slow
def test_narrow_networks_have_no_prediction(setup: CheckSetup) -> None:
    rows = list(check_cost(setup, measure=lambda _: 500 * MIB, predict=lambda config: 1))
    assert [row.verdict for row in rows if "memory" in row.what] == ["shown"]


@pytest.mark.slow
def test_published_networks_are_compared_with_the_prediction_for_their_run(
    setup: CheckSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow = weights_at_hand(miniature=True)
    monkeypatch.setattr(module, "weights_at_hand", lambda **_: replace(narrow, miniature=False))
    monkeypatch.setattr(module, "load_sd21", lambda _, **options: load_sd21(narrow, **options))
    asked: list[RunConfig] = []

    def predict(config: RunConfig) -> int:
        asked.append(config)
        return 480 * MIB

    rows = list(check_cost(setup, measure=lambda _: 500 * MIB, predict=predict))
    assert [replace(config, prompt="") for config in asked] == [setup.stable_diffusion]
    assert figure(rows, "sd21-base: prediction off") == pytest.approx(1 / 24)


def test_throughput_is_told_for_every_size(setup: CheckSetup) -> None:
    rows = list(check_throughput(setup))
    assert [row.what for row in rows] == [
        "100 Gaussians at 16 pixels: forward",
        "100 Gaussians at 16 pixels: forward and backward",
    ]
    assert all(row.figure is not None and row.figure > 0.0 for row in rows)
