"""How latents are turned into targets; free of torch, so that the command line can show it at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import tyro

Annealing = Literal["linear", "sqrt", "uniform"]
NoiseSource = Literal["inversion", "random", "fixed-random", "unconditional", "cached", "fixed-point"]
Renoise = Literal["paper", "reference"]
InversionOrder = Literal[1, 2]


@dataclass(frozen=True, kw_only=True)
class ViewPromptsConfig:
    """Texts for single sides of the object; the background's words are still added to them."""

    front: str | None = None
    """Text instead of "<prompt>, front view"; None keeps that one (threestudio's prompt_front)."""
    side: str | None = None
    """Text instead of "<prompt>, side view"."""
    back: str | None = None
    """Text instead of "<prompt>, back view"."""
    overhead: str | None = None
    """Text instead of "<prompt>, overhead view"."""


@dataclass(frozen=True, kw_only=True)
class GuidanceConfig:
    """How latents are turned into targets."""

    noise: Annotated[NoiseSource, tyro.conf.arg(aliases=("--noise",))] = "inversion"
    """Where kappa comes from: DDIM inversion under the prompt (SDI), i.i.d. draws (SDS), one draw for the whole run,
    inversion without the prompt (ISM-like), the previous prediction (DDIM), or iterations of the paper's eq. 8."""
    guidance_scale: float = 7.5
    """gamma_fwd in the convention e_u + s (e_c - e_u); 7.5 for SD 2.1 (SDI paper, 5.1)."""
    inversion_guidance_scale: float | None = None
    """gamma_inv in the same convention; None means minus the guidance scale (SDI paper, 4.3)."""
    inversion_steps: int = 10
    """Length of the full inversion grid; smaller t uses the part below it (published code)."""
    inversion_order: InversionOrder = 1
    """Order of the solver that inverts: 1 is DDIM's step as published, 2 is a multistep solver in sigma."""
    inversion_data_std: float = 0.05
    """Standard deviation of the data, in latent units, in the second-order solver's model and grid
    (docs/reports/probe.md)."""
    inversion_eta: float = 0.3
    """Share of DDIM's variance that is added at every inversion step (published code)."""
    inversion_overshoot: float = 1.0 / 30.0
    """Upper end of the uniform draw tau by which the inversion passes t, as a share of T (paper, A.3).

    With ``renoise="reference"`` it is one stride of the inversion grid instead, as in the published code."""
    renoise: Renoise = "paper"
    """What the prior is shown at t after an inversion: the latents noised at t with kappa (paper, algorithm 2), or the
    inverted latents themselves, which stand at t + tau (published code)."""
    fixed_point_iterations: int = 10
    """Iterations of kappa = eps_t(z noised with kappa) from a random start, for the noise source "fixed-point"."""
    perp_neg: bool = False
    """Blend the view words by angle and push away from the wrong ones (Perp-Neg): four branches for two."""
    gradient_clip: float | None = None
    """Largest pull on a latent element, |z - target| in latent units; None for no limit (threestudio's grad_clip)."""
    random_fraction: float = 0.0
    """Share of the run, from its start, in which kappa is random whatever the noise source is."""
    t_max: float = 0.98
    """First timestep as a share of T (published config)."""
    t_min: float = 0.25
    """Last timestep as a share of T (published config)."""
    annealing: Annealing = "linear"
    """How t moves over the run's own length; "uniform" draws it from the range at every step."""

    def __post_init__(self) -> None:
        for name, given, known in (("noise", self.noise, NoiseSource), ("renoise", self.renoise, Renoise)):
            if given not in get_args(known):
                raise ValueError(f"{name} must be one of {', '.join(get_args(known))}, got {given!r}")
        if not 0.0 < self.t_min <= self.t_max <= 1.0:
            raise ValueError(f"t range must obey 0 < t_min <= t_max <= 1, got {self.t_min} and {self.t_max}")
        if not 1 <= self.inversion_steps <= 1000:
            raise ValueError(f"inversion_steps must be 1 to 1000, got {self.inversion_steps}")
        if self.inversion_order not in (1, 2):
            raise ValueError(f"inversion_order must be 1 or 2, got {self.inversion_order}")
        if not 1e-3 <= self.inversion_data_std <= 100.0:
            raise ValueError(f"inversion_data_std must be 0.001 to 100, got {self.inversion_data_std}")
        if self.fixed_point_iterations < 1:
            raise ValueError(f"fixed_point_iterations must be at least 1, got {self.fixed_point_iterations}")
        if not 0.0 <= self.random_fraction <= 1.0:
            raise ValueError(f"random_fraction must be 0 to 1, got {self.random_fraction}")
        if not 0.0 <= self.inversion_eta < math.inf:
            raise ValueError(f"inversion_eta must not be negative, got {self.inversion_eta}")
        if not 0.0 <= self.inversion_overshoot <= 0.1:
            raise ValueError(f"inversion_overshoot must be 0 to 0.1, got {self.inversion_overshoot}")
        if not (math.isfinite(self.guidance_scale) and math.isfinite(self.resolved_inversion_scale)):
            raise ValueError(
                f"guidance scales must be finite, got {self.guidance_scale} and {self.inversion_guidance_scale}"
            )
        if self.gradient_clip is not None and not self.gradient_clip > 0.0:
            raise ValueError(f"gradient_clip must be positive, got {self.gradient_clip}")

    @property
    def resolved_inversion_scale(self) -> float:
        """gamma_inv with its default filled in."""
        given = self.inversion_guidance_scale
        return -self.guidance_scale if given is None else given
