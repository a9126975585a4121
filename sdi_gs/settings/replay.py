"""How often a target is trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from sdi_gs.settings.bounds import Range, check_settings


@dataclass(frozen=True, kw_only=True)
class ReplayConfig:
    """Target replay: several optimiser steps for each target, on views whose targets are kept.

    A target costs predictor calls, a step only a render; detail needs many steps (docs/how-it-works.md).
    """

    steps_per_target: Annotated[int, Range(1, 1000)] = 1
    """Optimiser steps in a round, which computes the targets of ``views_per_step`` new views; 1 for no replay."""
    views: Annotated[int | None, Range(1, 1_000_000)] = None
    """Number of latest targets from which a round's further steps draw; None for those of the round itself."""

    def __post_init__(self) -> None:
        check_settings(self)
