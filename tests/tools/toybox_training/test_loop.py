"""The training loop: what a stop, a resumption and the average do to the weights."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toybox_training.loop import (
    LOG_FILE,
    LoopConfig,
    averaged_weights,
    batch_generator,
    initial_weights,
    rate_share,
    train,
)
from toybox_training.workers import Workers

from sdi_gs.errors import NonFiniteError, UserError

pytestmark = pytest.mark.slow


class Line:
    """Learns the slope of a line from random points, or of several at once."""

    def __init__(self, *, stop_at: int | None = None, diverge_at: int | None = None, width: int = 1) -> None:
        with initial_weights(3):
            self.networks: nn.Module = nn.Linear(width, width)
        self.width, self.shares = width, list[float]()
        self.stop_at, self.diverge_at = stop_at, diverge_at

    def loss(self, done: float, batch: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        self.shares.append(done)
        if batch == self.stop_at:
            # To this thread: one that is sent to the process may come a step later.
            signal.raise_signal(signal.SIGTERM)
        x = torch.randn(16, self.width, generator=generator)
        error = (self.networks(x) - 2.0 * x).square().mean()
        return error * (float("nan") if batch == self.diverge_at else 1.0), {"x": x.mean().item()}

    def report(self, networks: nn.Module, folder: Path, step: int) -> dict[str, Any]:
        assert isinstance(networks, nn.Linear)
        return {"slope": networks.weight[0, 0].item()}


def config(steps: int = 40, **changes: Any) -> LoopConfig:
    rates = {"learning_rate": 0.05, "warmup_steps": 5, "log_every": 10, "report_every": 20, "save_every": 15}
    return LoopConfig(steps=steps, **(rates | changes))


def log_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / LOG_FILE).read_text().splitlines()]


@pytest.mark.parametrize(("muon", "width"), [(None, 1), (0.02, 6)])
def test_a_stopped_and_resumed_run_ends_with_the_very_weights_of_one_that_was_not(
    tmp_path: Path, muon: float | None, width: int
) -> None:
    settings = config(muon_learning_rate=muon)
    whole = train(settings, Line(width=width), tmp_path / "whole", resume=False)
    assert train(settings, Line(stop_at=17, width=width), tmp_path / "parts", resume=False) is None
    parts = train(settings, Line(width=width), tmp_path / "parts", resume=True)
    assert whole is not None
    assert parts is not None
    for name, value in whole.state_dict().items():
        assert torch.equal(parts.state_dict()[name], value), name
    # The step in which SIGTERM came was finished and kept.
    assert torch.load(tmp_path / "parts/state.pt", weights_only=True)["step"] == 40
    assert [line["step"] for line in log_of(tmp_path / "parts")] == [10, 20, 30, 40]


def test_a_stop_leaves_signals_as_they_were(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    train(config(), Line(stop_at=3), tmp_path / "run", resume=False)
    assert signal.getsignal(signal.SIGTERM) is before
    assert torch.load(tmp_path / "run/state.pt", weights_only=True)["step"] == 4


def test_the_average_is_what_is_returned_reported_and_found_again(tmp_path: Path) -> None:
    averaged = train(config(60), Line(), tmp_path / "run", resume=False)
    assert isinstance(averaged, nn.Linear)
    assert averaged_weights(tmp_path / "run")["weight"].item() == averaged.weight.item()
    reported = [line["slope"] for line in log_of(tmp_path / "run") if "slope" in line]
    assert reported[-1] == pytest.approx(averaged.weight.item(), rel=1e-4)
    assert len(reported) == 3


def test_the_average_of_a_run_is_the_exponential_one(tmp_path: Path) -> None:
    task, seen = Line(), []
    inner = task.loss

    def loss(done: float, batch: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        seen.append(task.networks.state_dict()["weight"].item())
        return inner(done, batch, generator)

    task.loss = loss
    averaged = train(config(30, average_decay=0.9), task, tmp_path / "run", resume=False)
    assert isinstance(averaged, nn.Linear)
    expected = seen[0]
    for step, value in enumerate([*seen[1:], task.networks.state_dict()["weight"].item()], start=1):
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1.0 - decay) * value
    assert averaged.weight.item() == pytest.approx(expected, rel=1e-5)


def test_a_folder_with_a_run_is_never_begun_anew(tmp_path: Path) -> None:
    train(config(5), Line(), tmp_path / "run", resume=False)
    before = (tmp_path / "run/state.pt").read_bytes()
    with pytest.raises(UserError, match="--resume"):
        train(config(5), Line(), tmp_path / "run", resume=False)
    assert (tmp_path / "run/state.pt").read_bytes() == before


def test_a_loss_that_is_no_number_ends_the_run_before_the_weights_are_spoilt(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match="step 17"):
        train(config(), Line(diverge_at=17), tmp_path / "run", resume=False)
    assert torch.load(tmp_path / "run/state.pt", weights_only=True)["step"] == 15


def test_the_rate_rises_linearly_and_falls_as_a_cosine() -> None:
    settings = config(1000, warmup_steps=10, final_share=0.1)
    assert rate_share(settings, 0, 0.0) == pytest.approx(0.1, rel=1e-3)
    assert rate_share(settings, 500, 0.5) == pytest.approx(0.55)
    assert rate_share(settings, 1000, 1.0) == pytest.approx(0.1)


def test_batches_share_no_noise_and_seeds_neither() -> None:
    draws = [torch.randn(50, generator=batch_generator(seed, batch)) for seed in (0, 1) for batch in range(20)]
    assert len(torch.cat(draws).unique()) == 50 * 40


def test_weights_follow_the_seed_and_leave_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    with initial_weights(1):
        first = nn.Linear(3, 3).weight
    with initial_weights(1):
        again = nn.Linear(3, 3).weight
    with initial_weights(2):
        other = nn.Linear(3, 3).weight
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("changes", [{"steps": 0}, {"save_every": 0}, {"average_decay": 1.0}])
def test_nonsense_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        LoopConfig(**({"steps": 10, "learning_rate": 1.0} | changes))


def test_without_a_run_there_are_no_weights(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no training run"):
        averaged_weights(tmp_path)


def test_a_cycle_is_fitted_into_its_minutes_and_ends_as_one_of_that_many_steps(tmp_path: Path) -> None:
    clock = [100.0]

    class Slow(Line):
        def loss(self, done: float, batch: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            clock[0] += 30.0 if batch == 0 else 0.5
            return super().loss(done, batch, generator)

    task = Slow()
    told = train(config(10_000, minutes=2.0), task, tmp_path / "run", resume=False, clock=lambda: clock[0])
    assert told is not None
    # 30 s, 59 steps of half a second, and as many of them as fit into the rest of two minutes.
    assert torch.load(tmp_path / "run/state.pt", weights_only=True)["step"] == 60 + 121
    assert clock[0] - 100.0 == pytest.approx(120.0, abs=0.5)
    assert task.shares[59] == 59 / 10_000
    assert task.shares[60:] == [step / 181 for step in range(60, 181)]


def test_minutes_that_are_enough_leave_the_steps_alone(tmp_path: Path) -> None:
    train(config(70, minutes=60.0), Line(), tmp_path / "run", resume=False)
    assert torch.load(tmp_path / "run/state.pt", weights_only=True)["step"] == 70


@pytest.mark.parametrize("changes", [{"minutes": 1.0}, {"feeders": 1}])
def test_several_processes_refuse_what_is_for_one(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"{next(iter(changes))} .* for one process"):
        train(config(**changes), Line(), tmp_path, resume=False, workers=Workers(rank=0, count=2))
