"""A whole step over the calls of its prior: what everything else costs.

    python benchmarks/step_cost.py [--preset toybox] [--steps 40] [--every-step]

Within a real run the prior's calls are timed on the process' clock, and so are whole rounds: a step with new targets
and those that reuse them. ``--every-step`` gives every step targets of its own, by the published inversion, as when the
goal of 1.15 was set. The last line is one JSON object.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import torch
import tyro

import sdi_gs
from sdi_gs.files.kept_memory import keep_freed_memory
from sdi_gs.training.trainer import Trainer

BAR = 1.10


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Options."""

    preset: str = "toybox"
    prompt: str = "a blue robot"
    steps: int = 40
    """Timed steps, after one round that is not."""
    every_step: bool = False
    """Whether every step has targets of its own."""


class Clock:
    """Seconds of the process within the methods that it watches."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def watch(self, owner: Any, method: str) -> None:
        """Time the calls of a method."""
        inner = getattr(owner, method)
        self.seconds[method] = 0.0

        def timed(*args: Any, **named: Any) -> Any:
            begin = time.process_time()
            try:
                return inner(*args, **named)
            finally:
                self.seconds[method] += time.process_time() - begin

        setattr(owner, method, timed)


def main(settings: Settings) -> None:
    """Time and print."""
    torch.set_num_threads(1)
    # As ``sdi-gs train`` does.
    keep_freed_memory()
    changes: dict[str, Any] = {}
    if settings.every_step:
        changes = {"replay.steps_per_target": 1, "replay.views": None, "guidance.noise": "inversion"}
        changes |= {"guidance.random_fraction": 0.0}
    config = sdi_gs.preset(settings.preset, changes, prompt=settings.prompt)
    trainer, clock = Trainer(config, sdi_gs.load_prior(config)), Clock()
    for _ in range(config.replay.steps_per_target):
        trainer.train_step()
    for owner, method in (
        (trainer.prior, "predict_noise"),
        (trainer.prior, "encode_images"),
        (trainer.prior, "decode_latents"),
        (trainer.scene, "render"),
        (trainer.scene, "backward"),
        (trainer.scene, "update"),
    ):
        clock.watch(owner, method)
    begin = time.process_time()
    for _ in range(settings.steps):
        trainer.train_step()
    total = time.process_time() - begin
    calls = clock.seconds["predict_noise"]
    for name, seconds in clock.seconds.items():
        print(f"{name:>15}: {1e3 * seconds / settings.steps:7.1f} ms a step, {100 * seconds / total:5.1f} %")
    rest = total - sum(clock.seconds.values())
    print(f"{'the rest':>15}: {1e3 * rest / settings.steps:7.1f} ms a step, {100 * rest / total:5.1f} %")
    summary = {"benchmark": "step_cost", "preset": settings.preset, "every_step": settings.every_step, "bar": BAR}
    print(json.dumps(summary | {"ratio": total / calls, "step_s": total / settings.steps, "parts": clock.seconds}))


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
