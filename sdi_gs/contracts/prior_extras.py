"""What a ``DiffusionPrior`` may offer besides: each is a protocol of its own, used where a prior has its members.

``row_groups.GroupedPrior`` is one more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from sdi_gs.settings.compute import ComputeConfig


@runtime_checkable
class ShorteningPrior(Protocol):
    """A prior that reads a bounded length of text."""

    def shortened(self, sentence: str, endings: Sequence[str]) -> str:
        """Return the beginning of a sentence that fits with each of the endings behind it; warn of what is cut."""
        ...


@runtime_checkable
class TunablePrior(Protocol):
    """A prior that can compute in several ways."""

    def configure(self, compute: ComputeConfig) -> None:
        """Compute in these ways from the next call on; predictions stay the same up to rounding."""
        ...


@dataclass(frozen=True, kw_only=True)
class Widened:
    """A network that goes on in float32."""

    network: str
    """Its name in the line that is printed: "U-Net"."""
    compute: ComputeConfig
    """The options under which it computes in float32; they differ in ``precision`` or ``vae_precision``."""


@runtime_checkable
class WideningPrior(TunablePrior, Protocol):
    """A prior whose networks may compute in half precision, where numbers can overflow, and in float32 as well."""

    def widened(self, compute: ComputeConfig) -> Widened | None:
        """Return the network to compute in float32 next, after a step under ``compute`` that was not finite.

        None if every network is in float32 already: the run then ends. Otherwise the step is repeated under the
        options that are returned, which ``configure`` gets first; if it is not finite again, this is called again.
        """
        ...


@runtime_checkable
class SlowStartingPrior(Protocol):
    """A prior whose first call may take much longer than the others."""

    @property
    def slow_start(self) -> str | None:
        """Why, as a line that is printed before the first step; None if it takes no longer, as configured now."""
        ...


@runtime_checkable
class NotedPrior(Protocol):
    """A prior with something to know about how it was read."""

    @property
    def notes(self) -> Sequence[str]:
        """One line each, printed when the prior is loaded."""
        ...


@runtime_checkable
class SharedPrior(Protocol):
    """A prior that several runs can use one after the other, without computing again what they share."""

    def keep_prompts(self) -> None:
        """From now on keep what is computed for prompts, for further runs of the same ones."""
        ...

    def forget_prompts(self) -> None:
        """Drop what belongs to single prompts, before a run with another one; what all prompts share stays."""
        ...
