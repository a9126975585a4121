"""The protocol of noise sources, and the request that they get.

A source infers kappa, the noise that latents are noised with. Its simplest form is a class with one method:

    class Half:
        def infer(self, request: NoiseRequest) -> Tensor:
            return 0.5 * Inversion().infer(request)

Inherit from ``NoiseSource`` for a type-checked one; the three other methods have defaults.

Letters: B images, C latent channels, h w latent pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from sdi_gs.contracts import GuidanceOutput, NoiseSchedule
from sdi_gs.guidance.step_plan import StepPlan
from sdi_gs.settings.guidance import GuidanceConfig

Predictor = Callable[[Tensor, int, float], Tensor]
"""Guided noise [B, C, h, w] of noised latents [B, C, h, w] at a timestep, under a guidance scale."""


@dataclass(frozen=True, kw_only=True)
class NoiseRequest:
    """All that a source may use to infer kappa."""

    config: GuidanceConfig
    """The settings in force at this step; some may change while a run trains."""
    plan: StepPlan
    schedule: NoiseSchedule
    latents: Tensor  # [B, C, h, w] clean, without gradient
    predict: Predictor
    """The prior under guidance; every call counts."""
    generator: torch.Generator
    """For every random draw, on the device of the latents; a run is reproducible only if no other is used."""
    carried: Tensor | None = None  # [1 or B, C, h, w]
    """What ``carry`` returned at the previous step; None at first and when the number of images has changed."""

    @property
    def timestep(self) -> int:
        """The step's timestep t, shared by all images."""
        return self.plan.timestep


class InfersNoise(Protocol):
    """The one method that every noise source must have."""

    def infer(self, request: NoiseRequest) -> Tensor:
        """Return kappa [B, C, h, w], with the dtype and the device of the latents."""
        ...


@runtime_checkable
class NoiseSource(InfersNoise, Protocol):
    """Where kappa comes from, with defaults for all methods but ``infer``.

    It is called in steps that compute targets, and keeps nothing between them in its attributes: ``carry`` returns it,
    and the run saves it.
    """

    def carry(self, output: GuidanceOutput) -> Tensor | None:
        """Return what the next step's ``infer`` needs of this step, [1 or B, C, h, w], by default None.

        It is part of the run's saved state. It is also called during a warm-up with random noise.
        """
        return None

    def shown_timestep(self, plan: StepPlan, config: GuidanceConfig, schedule: NoiseSchedule) -> int:
        """Return the timestep to which kappa noises the latents for the target's prediction, by default t."""
        return plan.timestep

    def num_calls(self, plan: StepPlan, config: GuidanceConfig, schedule: NoiseSchedule) -> int:
        """Return how often ``infer`` calls the predictor, by default 0; used to plan a run's cost, not to run it."""
        return 0


class _WithDefaults(NoiseSource):
    """A source that takes the methods it does not have from ``NoiseSource``."""

    def __init__(self, source: InfersNoise) -> None:
        self.source = source
        for name in ("carry", "shown_timestep", "num_calls"):
            if hasattr(source, name):
                setattr(self, name, getattr(source, name))

    def infer(self, request: NoiseRequest) -> Tensor:
        return self.source.infer(request)


def with_defaults(source: InfersNoise) -> NoiseSource:
    """Return the source itself if it has all four methods, else one that adds the defaults."""
    return source if isinstance(source, NoiseSource) else _WithDefaults(source)


def source_name(source: InfersNoise) -> str:
    """Return the name of a source's class, for messages and saved states."""
    return type(source.source if isinstance(source, _WithDefaults) else source).__name__
