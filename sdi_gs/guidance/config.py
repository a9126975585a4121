"""How latents are turned into targets; free of torch, so that the command line can show it at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

Annealing = Literal["linear", "sqrt", "uniform"]
NoiseSource = Literal["inversion", "random"]


@dataclass(frozen=True, kw_only=True)
class GuidanceConfig:
    """How latents are turned into targets."""

    noise: Annotated[NoiseSource, tyro.conf.arg(aliases=("--noise",))] = "inversion"
    """Where kappa comes from: DDIM inversion under the prompt (SDI) or i.i.d. draws (SDS)."""
    guidance_scale: float = 7.5
    """gamma_fwd in the convention e_u + s (e_c - e_u); 7.5 for SD 2.1 (SDI paper, 5.1)."""
    inversion_guidance_scale: float | None = None
    """gamma_inv in the same convention; None means minus the guidance scale (SDI paper, 4.3)."""
    inversion_steps: int = 10
    """Length of the full inversion grid; smaller t uses the part below it (published code)."""
    inversion_eta: float = 0.3
    """Share of DDIM's variance that is added at every inversion step (published code)."""
    inversion_overshoot: float = 1.0 / 30.0
    """Upper end of the uniform draw tau by which the inversion passes t, as a share of T (paper, A.3)."""
    random_fraction: float = 0.0
    """Share of the run, from its start, in which kappa is random whatever the noise source is."""
    t_max: float = 0.98
    """First timestep as a share of T (published config)."""
    t_min: float = 0.25
    """Last timestep as a share of T (published config)."""
    annealing: Annealing = "linear"
    """How t moves over the run's own length; "uniform" draws it from the range at every step."""

    def __post_init__(self) -> None:
        if not 0.0 < self.t_min <= self.t_max <= 1.0:
            raise ValueError(f"t range must obey 0 < t_min <= t_max <= 1, got {self.t_min} and {self.t_max}")
        if not 1 <= self.inversion_steps <= 1000:
            raise ValueError(f"inversion_steps must be 1 to 1000, got {self.inversion_steps}")
        if not 0.0 <= self.random_fraction <= 1.0:
            raise ValueError(f"random_fraction must be 0 to 1, got {self.random_fraction}")
        if self.inversion_eta < 0.0:
            raise ValueError(f"inversion_eta must not be negative, got {self.inversion_eta}")
        if not 0.0 <= self.inversion_overshoot <= 0.1:
            raise ValueError(f"inversion_overshoot must be 0 to 0.1, got {self.inversion_overshoot}")

    @property
    def resolved_inversion_scale(self) -> float:
        """gamma_inv with its default filled in."""
        given = self.inversion_guidance_scale
        return -self.guidance_scale if given is None else given
