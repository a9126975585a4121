"""Settings of the guidance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from sdi_gs.errors import UserError
from sdi_gs.settings.bounds import SHARE, Range, check_settings
from sdi_gs.settings.noise_sources import NOISE_SOURCES, NoiseName

Annealing = Literal["linear", "sqrt", "uniform", "widening"]
Renoise = Literal["paper", "reference"]
InversionOrder = Literal[1, 2]
InversionSpacing = Literal["timesteps", "sigma"]
ViewKnowledge = Literal["words", "cameras"]
PerpNegCalls = Literal["all", "last"]

_GUIDANCE_SCALE = Range(-1000.0, 1000.0)
_TIMESTEP_SHARE = Range(0.001, 1.0)
"""Not 0: Stable Diffusion's first timestep is one of a thousand."""

_NOISE_HELP = f"Where kappa comes from. {'; '.join(f'{name}: {row.summary}' for name, row in NOISE_SOURCES.items())}."


@dataclass(frozen=True, kw_only=True)
class ViewPromptsConfig:
    """Prompts for single sides of the object; with ``prompt_background`` they name the background as well."""

    front: str | None = None
    """Text instead of "<prompt>, front view"; None for no change (threestudio's prompt_front)."""
    side: str | None = None
    """Text instead of "<prompt>, side view"."""
    back: str | None = None
    """Text instead of "<prompt>, back view"."""
    overhead: str | None = None
    """Text instead of "<prompt>, overhead view"."""

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True, kw_only=True)
class GuidanceConfig:
    """How the target of the latents is computed."""

    noise: Annotated[NoiseName, tyro.conf.arg(aliases=("--noise",), help=_NOISE_HELP)] = "inversion"
    """Where kappa comes from: a name in NOISE_SOURCES."""
    guidance_scale: Annotated[float, _GUIDANCE_SCALE] = 7.5
    """gamma_fwd, the s of e_u + s (e_c - e_u); 7.5 for SD 2.1 (SDI paper, 5.1)."""
    inversion_guidance_scale: Annotated[float | None, _GUIDANCE_SCALE] = None
    """gamma_inv, the s of the inversion; None for minus the guidance scale (SDI paper, 4.3)."""
    inversion_steps: Annotated[int, Range(1, 1000)] = 10
    """Number of timesteps in the full inversion grid, of which only those below t are used (published code)."""
    inversion_order: InversionOrder = 1
    """Order of the inversion's solver: 1 for DDIM steps as published, 2 for a two-step solver in sigma."""
    inversion_spacing: InversionSpacing | None = None
    """What the inversion grid is even in: "timesteps" as published, or "sigma", more exactly
    asinh(sigma / inversion_data_std); None for timesteps at order 1 and sigma at order 2 (docs/reports/probe.md)."""
    inversion_data_std: Annotated[float, Range(0.001, 100.0)] = 1.0
    """Standard deviation of the data, in latent units, in a grid even in sigma and in the second-order solver's model
    (docs/reports/probe.md)."""
    inversion_eta: Annotated[float, Range(0.0, 100.0)] = 0.3
    """Share of DDIM's variance that is added at every inversion step (published code)."""
    inversion_overshoot: Annotated[float, Range(0.0, 0.1)] = 1.0 / 30.0
    """Largest tau by which the inversion passes t, as a share of T; tau is drawn uniformly (paper, A.3).

    With ``renoise="reference"`` it is one stride of the inversion grid instead, as in the published code."""
    renoise: Renoise = "paper"
    """Latents from which the target is predicted after an inversion: "paper" noises them with kappa to t (paper,
    algorithm 2), "reference" takes the inverted latents, which are at t + tau (published code)."""
    fixed_point_iterations: Annotated[int, Range(1, 1000)] = 10
    """Iterations of kappa = eps_t(z noised with kappa) from a random start; for the noise source "fixed-point"."""
    views: ViewKnowledge = "words"
    """How the prior learns the view: "words" adds a view word to the prompt, "cameras" passes the camera itself, for
    priors that know cameras."""
    perp_neg: bool = False
    """Blend the view words by angle and push away from the wrong ones (Perp-Neg); four branches instead of two."""
    perp_neg_calls: PerpNegCalls = "all"
    """Calls of the prior that push away from the wrong view words: all of a step as published, or only the last, which
    predicts the target; kappa is then inferred with two branches, at two thirds of the time."""
    gradient_clip: Annotated[float | None, Range(0.0, 1e9, low_open=True)] = None
    """Upper limit of |z - target| for each element, in latent units; None for no limit (threestudio's grad_clip)."""
    random_fraction: Annotated[float, SHARE] = 0.0
    """Share of the run, from its start, with random kappa instead of the noise source's."""
    t_max: Annotated[float, _TIMESTEP_SHARE] = 0.98
    """First timestep as a share of T (published config)."""
    t_min: Annotated[float, _TIMESTEP_SHARE] = 0.25
    """Last timestep as a share of T (published config)."""
    annealing: Annealing = "linear"
    """How t goes from t_max to t_min over the run; "uniform" draws it from that range at every step, "widening" from a
    range that is t_max alone at first, and whose ends fall evenly to t_min and t_max_final (MVDream)."""
    t_max_final: Annotated[float, _TIMESTEP_SHARE] = 0.5
    """Upper end of the range of t at the end of annealing "widening", as a share of T (MVDream's max_step_percent)."""
    annealing_end: Annotated[float, Range(0.001, 1.0)] = 1.0
    """Share of the run after which t, or its range, stays where it has fallen to (MVDream: step 8000 of 10 000)."""
    target_rescale: Annotated[float, SHARE] = 0.0
    """Share by which the target's spread, over a group's views, is brought to that of the prediction with the prompt
    alone: high guidance scales over-saturate (arXiv 2305.08891; MVDream's recon_std_rescale, 0.5)."""

    def __post_init__(self) -> None:
        check_settings(self)
        if self.t_min > self.t_max:
            raise ValueError(f"t_min must be at most t_max, got {self.t_min} and {self.t_max}")
        if self.annealing == "widening" and not self.t_min <= self.t_max_final <= self.t_max:
            raise ValueError(
                f"with annealing widening, t_max_final must be t_min to t_max, {self.t_min} to {self.t_max}, got "
                f"{self.t_max_final}"
            )
        if self.views == "cameras" and self.perp_neg:
            raise ValueError(
                "perp_neg blends view words, and with views cameras there are none: use views words, or no perp_neg"
            )

    @property
    def resolved_inversion_scale(self) -> float:
        """gamma_inv, with None replaced by minus the guidance scale."""
        scale = self.inversion_guidance_scale
        return -self.guidance_scale if scale is None else scale

    @property
    def resolved_inversion_spacing(self) -> InversionSpacing:
        """What the inversion grid is even in, with None replaced by the order's own."""
        if self.inversion_spacing is not None:
            return self.inversion_spacing
        return "timesteps" if self.inversion_order == 1 else "sigma"


def require_cameras(prior: str, *, known: bool) -> None:
    """Raise UserError, which names the prior, unless it is ``known`` to know cameras."""
    if not known:
        raise UserError(
            f"guidance.views cameras needs a prior that knows cameras, and {prior} knows view words only: use "
            "--guidance.views words, or another prior (sdi-gs priors lists which know cameras)"
        )
