"""Settings of the guidance; imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import tyro

from sdi_gs.settings.noise_sources import NOISE_SOURCES, NoiseName

Annealing = Literal["linear", "sqrt", "uniform"]
Renoise = Literal["paper", "reference"]
InversionOrder = Literal[1, 2]

_NOISE_HELP = f"Where kappa comes from. {'; '.join(f'{name}: {row.summary}' for name, row in NOISE_SOURCES.items())}."


@dataclass(frozen=True, kw_only=True)
class ViewPromptsConfig:
    """Prompts for single sides of the object; the background's words are appended to them as well."""

    front: str | None = None
    """Text instead of "<prompt>, front view"; None for no change (threestudio's prompt_front)."""
    side: str | None = None
    """Text instead of "<prompt>, side view"."""
    back: str | None = None
    """Text instead of "<prompt>, back view"."""
    overhead: str | None = None
    """Text instead of "<prompt>, overhead view"."""


@dataclass(frozen=True, kw_only=True)
class GuidanceConfig:
    """How the target of the latents is computed."""

    noise: Annotated[NoiseName, tyro.conf.arg(aliases=("--noise",), help=_NOISE_HELP)] = "inversion"
    """Where kappa comes from: a name in NOISE_SOURCES."""
    guidance_scale: float = 7.5
    """gamma_fwd, the s of e_u + s (e_c - e_u); 7.5 for SD 2.1 (SDI paper, 5.1)."""
    inversion_guidance_scale: float | None = None
    """gamma_inv, the s of the inversion; None for minus the guidance scale (SDI paper, 4.3)."""
    inversion_steps: int = 10
    """Number of timesteps in the full inversion grid, of which only those below t are used (published code)."""
    inversion_order: InversionOrder = 1
    """Order of the inversion's solver: 1 for DDIM steps as published, 2 for a two-step solver in sigma."""
    inversion_data_std: float = 0.05
    """Standard deviation of the data, in latent units, in the second-order solver's model and grid
    (docs/reports/probe.md)."""
    inversion_eta: float = 0.3
    """Share of DDIM's variance that is added at every inversion step (published code)."""
    inversion_overshoot: float = 1.0 / 30.0
    """Largest tau by which the inversion passes t, as a share of T; tau is drawn uniformly (paper, A.3).

    With ``renoise="reference"`` it is one stride of the inversion grid instead, as in the published code."""
    renoise: Renoise = "paper"
    """Latents from which the target is predicted after an inversion: "paper" noises them with kappa to t (paper,
    algorithm 2), "reference" takes the inverted latents, which are at t + tau (published code)."""
    fixed_point_iterations: int = 10
    """Iterations of kappa = eps_t(z noised with kappa) from a random start; for the noise source "fixed-point"."""
    perp_neg: bool = False
    """Blend the view words by angle and push away from the wrong ones (Perp-Neg); four branches instead of two."""
    gradient_clip: float | None = None
    """Upper limit of |z - target| for each element, in latent units; None for no limit (threestudio's grad_clip)."""
    random_fraction: float = 0.0
    """Share of the run, from its start, with random kappa instead of the noise source's."""
    t_max: float = 0.98
    """First timestep as a share of T (published config)."""
    t_min: float = 0.25
    """Last timestep as a share of T (published config)."""
    annealing: Annealing = "linear"
    """How t goes from t_max to t_min over the run; "uniform" draws it from that range at every step."""

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("noise", self.noise, NOISE_SOURCES),
            ("renoise", self.renoise, get_args(Renoise)),
        ):
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
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
        """gamma_inv, with None replaced by minus the guidance scale."""
        scale = self.inversion_guidance_scale
        return -self.guidance_scale if scale is None else scale
