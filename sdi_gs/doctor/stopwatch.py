"""Where the time of a training step goes: render, encode, guidance, backward, optimise.

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
    """Seconds between marks, added up by the part that each mark ends; CUDA is asked for its own clock, and once."""

    def __init__(self, device: torch.device, clock: Callable[[], float] = time.perf_counter) -> None:
        """``clock`` gives the seconds on a CPU."""
        self._device = device
        self._clock = clock
        self._marks: list[tuple[Part | None, Any]] = []

    def start(self) -> None:
        """Begin to count; what came since the last mark belongs to nobody."""
        self._marks.append((None, self._now()))

    def mark(self, part: Part) -> None:
        """What came since the last mark was this part."""
        self._marks.append((part, self._now()))

    def seconds(self) -> dict[Part, float]:
        """Waits for the device; sums by part in the order in which they first came."""
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
    """Stands in for an object, all of whose attributes are the object's own."""

    def __init__(self, inner: Any, stopwatch: Stopwatch) -> None:
        self._inner = inner
        self._stopwatch = stopwatch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _TimedPrior(_Timed):
    """A prior whose encoding ends the part "encode"."""

    recomputing = False
    """In the backward pass, which encodes once more where activations are not kept."""

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
    """A scene whose calls end the parts before and after them."""

    def __init__(self, inner: Any, stopwatch: Stopwatch, prior: _TimedPrior) -> None:
        super().__init__(inner, stopwatch)
        self._prior = prior

    def render(self, *arguments: Any, **options: Any) -> Any:
        output = self._inner.render(*arguments, **options)
        self._stopwatch.mark("render")
        return output

    def backward(self, *arguments: Any, **options: Any) -> None:
        # Losses are counted with the guidance: they read what it answered.
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
    """Time the steps that the body lets a trainer take; call ``start`` before each."""
    stopwatch = Stopwatch(trainer.device, clock)
    scene, prior = trainer.scene, trainer.prior
    timed_prior = _TimedPrior(prior, stopwatch)
    trainer.prior = cast(Any, timed_prior)
    trainer.scene = cast(Any, _TimedScene(scene, stopwatch, timed_prior))
    try:
        yield stopwatch
    finally:
        trainer.scene, trainer.prior = scene, prior
