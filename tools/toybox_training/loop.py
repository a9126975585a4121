"""Training loop of all toybox networks: exact resume, averaged weights, one cosine cycle.

Every batch has its own generator, seeded by the run's seed and the batch's number, so that a resumed run takes the same
steps as an uninterrupted one. If several processes train together, each computes one batch of a step.
"""

from __future__ import annotations

import copy
import json
import math
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sdi_gs.errors import NonFiniteError, UserError
from sdi_gs.files import replacement_for
from toybox_training.optimiser import Muon, divided
from toybox_training.workers import ALONE, Workers

STATE_FILE = "state.pt"
LOG_FILE = "progress.jsonl"
# The speed for ``minutes`` is measured between these steps; earlier ones warm up.
_TIMED_STEPS = (20, 60)


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """Length, learning rates and intervals of a training."""

    steps: int
    """Optimiser steps of the cycle."""
    minutes: float | None = None
    """Time limit of the cycle: after a few steps ``steps`` is reduced to fit. None for no limit."""
    learning_rate: float
    """Peak of the cosine cycle (AdamW)."""
    muon_learning_rate: float | None = None
    """Peak of the same cycle for matrices and convolutions under Muon; None for AdamW everywhere."""
    final_share: float = 0.02
    """Learning rate at the end, relative to the peak."""
    warmup_steps: int = 100
    """Steps of linear increase at the beginning."""
    weight_decay: float = 0.01
    """Weight decay of AdamW."""
    beta2: float = 0.99
    """AdamW's second-moment decay; short runs need a short memory."""
    max_gradient_norm: float = 1.0
    """Largest norm of all gradients together; larger ones are clipped."""
    average_decay: float = 0.999
    """Decay of the exponential average of the weights; the average is reported and shipped."""
    seed: int = 0
    """Seed of initial weights, data and noise."""
    log_every: int = 50
    """Steps between lines of the log."""
    report_every: int = 500
    """Steps between measurements on held-out data and sample sheets."""
    save_every: int = 250
    """Steps between checkpoints; SIGTERM and Ctrl-C write one too."""
    device: str = "cpu"
    """Device of the networks: "cpu" with one thread per process, or "cuda"."""
    feeders: int = 0
    """Processes that draw batches ahead, for a fast card."""

    def __post_init__(self) -> None:
        for name in ("steps", "warmup_steps", "log_every", "report_every", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.device not in ("cpu", "cuda"):
            raise ValueError(f"device is {self.device!r}; it must be cpu or cuda")
        if self.feeders < 0:
            raise ValueError(f"feeders is {self.feeders}; it must be 0 or more")
        if self.minutes is not None and self.minutes <= 0.0:
            raise ValueError(f"minutes is {self.minutes}; it must be positive")
        if not 0.0 <= self.average_decay < 1.0:
            raise ValueError(f"average_decay is {self.average_decay}; it must be in [0, 1)")


class Task(Protocol):
    """A network's loss and measurements."""

    @property
    def networks(self) -> nn.Module:
        """All trained networks."""
        ...

    def loss(self, done: float, batch: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of a batch, and numbers for the log; ``done`` is the completed share of the run."""
        ...

    def report(self, networks: nn.Module, folder: Path, step: int) -> dict[str, Any]:
        """Return measurements of averaged weights on held-out data, and write a sheet to the folder."""
        ...


def rate_share(config: LoopConfig, step: int, done: float) -> float:
    """Return the share of the peak learning rates: linear warm-up, then one cosine cycle down to ``final_share``."""
    warmup = min(1.0, (step + 1) / config.warmup_steps)
    cosine = 0.5 + 0.5 * math.cos(math.pi * min(1.0, done))
    return warmup * (config.final_share + (1.0 - config.final_share) * cosine)


def batch_generator(seed: int, batch: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return the generator of one batch; a card draws other numbers than a CPU."""
    return torch.Generator(device).manual_seed(seed * 1_000_003 + batch)


@contextmanager
def initial_weights(seed: int) -> Iterator[None]:
    """Seed the weights of networks built inside; the global generator is restored."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def _stop_requests() -> Iterator[Callable[[], bool]]:
    """Catch SIGTERM and Ctrl-C; the yielded function returns whether one arrived."""
    asked: list[int] = []
    before = {number: signal.signal(number, lambda n, _: asked.append(n)) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Run:
    """The state of a run; a checkpoint has all of it."""

    def __init__(
        self, config: LoopConfig, task: Task, folder: Path, workers: Workers, clock: Callable[[], float]
    ) -> None:
        self.config, self.task, self.folder, self.workers = config, task, folder, workers
        self.averaged = copy.deepcopy(task.networks).requires_grad_(False)
        self.parameters = [p for p in task.networks.parameters() if p.requires_grad]
        self.optimisers = optimisers_of(config, task.networks)
        self.step, self.steps = 0, config.steps
        self.cpu_seconds = 0.0
        self._clock = clock
        self._started = self._timed_from = clock()
        self._numbers: dict[str, list[float]] = defaultdict(list)
        self._counted = time.process_time()

    @property
    def done(self) -> float:
        """Completed share of the steps."""
        return self.step / self.steps

    def advance(self) -> None:
        """Take one optimiser step and update the average."""
        config = self.config
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = group["peak_lr"] * rate_share(config, self.step, self.done)
        batch = self.step * self.workers.count + self.workers.rank
        loss, numbers = self.task.loss(self.done, batch, batch_generator(config.seed, batch, config.device))
        if not torch.isfinite(loss):
            raise NonFiniteError(f"the loss of step {self.step} is {loss.item()}: resume with a lower learning rate")
        for parameter in self.parameters:
            parameter.grad = None
        loss.backward()
        self.workers.average_gradients(self.parameters)
        norm = nn.utils.clip_grad_norm_(self.parameters, config.max_gradient_norm)
        for optimiser in self.optimisers:
            optimiser.step()
        self.step += 1
        for name, value in {"loss": loss.item(), "gradient_norm": norm.item(), **numbers}.items():
            self._numbers[name].append(value)
        self._average()
        if config.minutes is not None:
            self._fit_into(60.0 * config.minutes)

    def _fit_into(self, seconds: float) -> None:
        """Reduce the number of steps to the time limit once the speed is known."""
        now = self._clock()
        first, last = _TIMED_STEPS
        if self.step == first:
            self._timed_from = now
        elif self.step == last:
            left = (seconds - (now - self._started)) * (last - first) / (now - self._timed_from)
            self.steps = min(self.steps, last + max(int(left), 1))

    @torch.no_grad()
    def _average(self) -> None:
        # A short decay at first; otherwise the initial weights would stay in the average for thousands of steps.
        decay = min(self.config.average_decay, (1 + self.step) / (10 + self.step))
        averaged: list[Tensor] = list(self.averaged.parameters())
        current: list[Tensor] = list(self.task.networks.parameters())
        torch._foreach_lerp_(averaged, current, 1.0 - decay)  # pyright: ignore[reportPrivateImportUsage]

    def log(self, extra: dict[str, Any] | None = None) -> None:
        """Append a line with the means since the last line."""
        self._count_time()
        means = {name: sum(values) / len(values) for name, values in self._numbers.items() if values}
        self._numbers.clear()
        line = {
            "step": self.step,
            "learning_rate": self.config.learning_rate * rate_share(self.config, self.step, self.done),
            "cpu_seconds": self.cpu_seconds,
            **means,
            **(extra or {}),
        }
        rounded = {name: float(f"{v:.5g}") if isinstance(v, float) else v for name, v in line.items()}
        with (self.folder / LOG_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(rounded) + "\n")

    def save(self) -> None:
        """Write the checkpoint."""
        self._count_time()
        state = {
            "step": self.step,
            "steps": self.steps,
            "cpu_seconds": self.cpu_seconds,
            "networks": self.task.networks.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
        }
        with replacement_for(self.folder / STATE_FILE, overwrite=True) as aside:
            torch.save(state, aside)

    def load(self) -> None:
        """Load the checkpoint."""
        state = torch.load(self.folder / STATE_FILE, weights_only=True, map_location=self.config.device)
        self.step, self.cpu_seconds = state["step"], state["cpu_seconds"]
        if self.config.minutes is not None:
            self.steps = state["steps"]
        self.task.networks.load_state_dict(state["networks"])
        self.averaged.load_state_dict(state["averaged"])
        for optimiser, stored in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(stored)

    def _count_time(self) -> None:
        now = time.process_time()
        self.cpu_seconds += now - self._counted
        self._counted = now


def optimisers_of(config: LoopConfig, networks: nn.Module) -> list[torch.optim.Optimizer]:
    """Return AdamW for all weights, or Muon for matrices and AdamW for the rest."""
    matrices, others = divided(networks)
    optimisers: list[torch.optim.Optimizer] = []
    if config.muon_learning_rate is None:
        others = [parameter for parameter in networks.parameters() if parameter.requires_grad]
    else:
        optimisers.append(Muon(matrices, lr=config.muon_learning_rate))
    optimisers.append(
        torch.optim.AdamW(
            others, lr=config.learning_rate, betas=(0.9, config.beta2), weight_decay=config.weight_decay, fused=True
        )
    )
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["peak_lr"] = group["lr"]
    return optimisers


def train(
    config: LoopConfig,
    task: Task,
    folder: Path,
    *,
    resume: bool,
    workers: Workers = ALONE,
    clock: Callable[[], float] = time.monotonic,
) -> nn.Module | None:
    """Run all steps and return the averaged networks; None if the run was stopped, with a checkpoint written.

    ``clock`` returns seconds, for the config's ``minutes``. Raises UserError if the folder has a run and ``resume`` is
    false, and if the device does not exist.
    """
    _check_device(config, workers)
    folder.mkdir(parents=True, exist_ok=True)
    run = _Run(config, task, folder, workers, clock)
    if (folder / STATE_FILE).exists():
        if not resume:
            raise UserError(f"{folder} holds a training run: add --resume to go on with it, or choose another --out")
        run.load()
    workers.wait()
    leads = workers.rank == 0
    with _stop_requests() as stop_requested:
        while run.step < run.steps:
            run.advance()
            stopping = workers.any(stop_requested())
            if leads and (run.step % config.report_every == 0 or run.step == run.steps):
                run.log(task.report(run.averaged, folder, run.step))
            elif leads and run.step % config.log_every == 0:
                run.log()
            if leads and (run.step % config.save_every == 0 or run.step == run.steps or stopping):
                run.save()
            if stopping:
                return None
    workers.wait()
    return run.averaged


def averaged_weights(folder: Path) -> dict[str, Any]:
    """Return the averaged weights of a run's last checkpoint, finished or not; raises UserError without one."""
    if not (folder / STATE_FILE).exists():
        raise UserError(f"{folder} holds no training run ({STATE_FILE}): give the --out of one")
    return torch.load(folder / STATE_FILE, weights_only=True, map_location="cpu")["averaged"]


def _check_device(config: LoopConfig, workers: Workers) -> None:
    if config.minutes is not None and workers.count > 1:
        raise UserError("minutes are for one process; give several that train together their steps")
    if config.feeders and workers.count > 1:
        raise UserError("feeders draw for one process; several that train together draw their own batches: set 0")
    if config.device == "cpu":
        return
    if not torch.cuda.is_available():
        raise UserError("device is cuda, and torch finds no CUDA device: sdi-gs doctor says why; take cpu")
    if workers.count > 1:
        raise UserError(f"{workers.count} processes train together on CPUs only: start one for device cuda")
