"""Settings of two-stage runs: a field first, splats second."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from sdi_gs.settings.bounds import Range, check_settings


@dataclass(frozen=True, kw_only=True)
class StagesConfig:
    """Division of a two-stage run's steps, and the timestep at which its second stage starts."""

    field_share: Annotated[float, Range(0.0, 1.0, low_open=True, high_open=True)] = 0.6
    """Share of the steps that train the field; the rest trains the splats."""
    t_max: Annotated[float, Range(0.0, 1.0, low_open=True)] = 0.5
    """First timestep of the second stage, as a share of T: noisier ones would discard the first stage's result."""

    def __post_init__(self) -> None:
        check_settings(self)
