"""How a two-stage run (a field first, splats second) divides its steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from sdi_gs.settings.bounds import Range, check_settings


@dataclass(frozen=True, kw_only=True)
class StagesConfig:
    """How a run's steps are shared out, and where the second stage takes up the diffusion."""

    field_share: Annotated[float, Range(0.0, 1.0, low_open=True, high_open=True)] = 0.6
    """Share of the steps that train the field; the rest trains the splats."""
    t_max: Annotated[float, Range(0.0, 1.0, low_open=True)] = 0.5
    """First timestep of the second stage, as a share of T: noisier ones would forget what the first one made."""

    def __post_init__(self) -> None:
        check_settings(self)
