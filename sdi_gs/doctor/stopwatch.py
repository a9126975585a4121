"""Time of a training step by part: render, encode, guidance, backward, optimise.

Letters: B cameras or images, H W pixels, C latent channels, h w latent pixels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, cast

import torch
from torch import Tensor

from sdi_gs.doctor.check_setup import synchronize
from sdi_gs.training.trainer import Trainer

Part = Literal["render", "encode", "guidance", "backward", "optimise"]


class Stopwatch:
    """Sums the seconds between marks by part. On CUDA it uses events, and waits for the device once, at the end."""

    def __init__(self, device: torch.device, clock: Callable[[], float] = time.perf_counter) -> None:
        """Create a stopwatch; ``clock`` returns seconds on a CPU."""
        self._device = device
        self._clock = clock
        self._marks: list[tuple[Part | None, Any]] = []

    def start(self) -> None:
        """Start; time since the last mark is discarded."""
        self._marks.append((None, self._now()))

    def mark(self, part: Part) -> None:
        """Attribute the time since the previous mark to ``part``."""
        self._marks.append((part, self._now()))

    def seconds(self) -> dict[Part, float]:
        """Wait for the device and return seconds by part, in the order of their first marks."""
        synchronize(self._device)
        sums: dict[Part, float] = {}
        for (_, before), (part, after) in zip(self._marks[:-1], self._marks[1:], strict=True):
            if part is not None:
                sums[part] = sums.get(part, 0.0) + self._between(before, after)
        return sums

    def _now(self) -> Any:
        if self._device.type != "cuda":
            return self._clock()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def _between(self, before: Any, after: Any) -> float:
        return before.elapsed_time(after) / 1000.0 if self._device.type == "cuda" else after - before


class _Timed:
    """Wraps an object and forwards all attributes."""

    def __init__(self, inner: Any, stopwatch: Stopwatch) -> None:
        self._inner = inner
        self._stopwatch = stopwatch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _TimedPrior(_Timed):
    """A prior that marks the end of "encode"."""

    recomputing = False
    """Whether the backward pass runs, which encodes again if activations were not kept."""

    def encode_images(
        self,
        images: Tensor,  # [B, H, W, 3]
        generator: torch.Generator,
    ) -> Tensor:  # [B, C, h, w]
        latents = self._inner.encode_images(images, generator)
        if not self.recomputing:
            self._stopwatch.mark("encode")
        return latents


class _TimedScene(_Timed):
    """A scene that marks the ends of "render", "guidance", "backward" and "optimise"."""

    def __init__(self, inner: Any, stopwatch: Stopwatch, prior: _TimedPrior) -> None:
        super().__init__(inner, stopwatch)
        self._prior = prior

    def render(self, *arguments: Any, **options: Any) -> Any:
        output = self._inner.render(*arguments, **options)
        self._stopwatch.mark("render")
        return output

    def backward(self, *arguments: Any, **options: Any) -> None:
        # Losses count as guidance: they read its output.
        self._stopwatch.mark("guidance")
        self._prior.recomputing = True
        self._inner.backward(*arguments, **options)
        self._prior.recomputing = False
        self._stopwatch.mark("backward")

    def update(self, *arguments: Any, **options: Any) -> None:
        self._inner.update(*arguments, **options)
        self._stopwatch.mark("optimise")


@contextmanager
def timed_parts(trainer: Trainer, clock: Callable[[], float] = time.perf_counter) -> Iterator[Stopwatch]:
    """Time the steps that a trainer takes in the body; call ``start`` before each."""
    stopwatch = Stopwatch(trainer.device, clock)
    scene, prior = trainer.scene, trainer.prior
    timed_prior = _TimedPrior(prior, stopwatch)
    trainer.prior = cast(Any, timed_prior)
    trainer.scene = cast(Any, _TimedScene(scene, stopwatch, timed_prior))
    try:
        yield stopwatch
    finally:
        trainer.scene, trainer.prior = scene, prior
