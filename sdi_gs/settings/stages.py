"""How a two-stage run (a field first, splats second) divides its steps."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class StagesConfig:
    """How a run's steps are shared out, and where the second stage takes up the diffusion."""

    field_share: float = 0.6
    """Share of the steps that train the field; the rest trains the splats."""
    t_max: float = 0.5
    """First timestep of the second stage, as a share of T: noisier ones would forget what the first one made."""

    def __post_init__(self) -> None:
        if not 0.0 < self.field_share < 1.0:
            raise ValueError(f"field_share must lie between 0 and 1, got {self.field_share}")
        if not 0.0 < self.t_max <= 1.0:
            raise ValueError(f"t_max must be above 0 and at most 1, got {self.t_max}")
