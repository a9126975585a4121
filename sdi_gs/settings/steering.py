"""The settings that may change while a run trains."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SteeredText:
    """A text that may change while a run trains, and its control on the viewer's page."""

    key: str
    """Dotted name in ``RunConfig``."""
    label: str


@dataclass(frozen=True, kw_only=True)
class SteeredNumber:
    """A number that may change while a run trains, and its control on the viewer's page.

    Its bounds are those that the config declares (``sdi_gs.settings.bounds.range_of``).
    """

    key: str
    """Dotted name in ``RunConfig``."""
    label: str
    hint: str
    step: float = 1
    """Difference that one press of the control's arrow makes."""


STEERED_TEXTS = (
    SteeredText(key="prompt", label="Prompt"),
    SteeredText(key="negative_prompt", label="Negative prompt"),
)

STEERED_NUMBERS = (
    SteeredNumber(key="guidance.guidance_scale", label="γ_fwd", step=0.1, hint="Guidance scale of the denoised target"),
    SteeredNumber(
        key="guidance.inversion_guidance_scale",
        label="γ_inv",
        step=0.1,
        hint="Guidance scale of the inversion; it follows minus γ_fwd until it is set",
    ),
    SteeredNumber(
        key="guidance.inversion_steps", label="n (inversion steps)", hint="Length of the full inversion grid"
    ),
    SteeredNumber(
        key="guidance.t_min",
        label="t min",
        step=0.01,
        hint="Last timestep as a share of the diffusion's length",
    ),
    SteeredNumber(
        key="guidance.t_max",
        label="t max",
        step=0.01,
        hint="First timestep as a share of the diffusion's length",
    ),
    SteeredNumber(key="views_per_step", label="Views per step", hint="Cameras rendered in each step"),
    SteeredNumber(
        key="learning_rate_scale",
        label="Learning-rate scale",
        step=0.1,
        hint="Factor on every learning rate of the run",
    ),
)

STEERABLE = tuple(setting.key for setting in (*STEERED_TEXTS, *STEERED_NUMBERS))
"""Settings that change the result and may change while a run trains."""

EXTENDABLE = ("extend",)
"""The number of steps after those of the schedules."""

TUNABLE = (
    "compute.views_at_once",
    "compute.rays_at_once",
    "compute.vae_views_at_once",
    "compute.branches_at_once",
    "compute.vae",
    "compute.vae_precision",
    "compute.precision",
    "compute.free_text_encoder",
    "compute.attention",
    "compute.channels_last",
    "compute.compile_unet",
    "compute.unet_engine",
    "compute.compile_mode",
    "compute.cuda_graphs",
    "compute.field_kernels",
    "compute.cache_cross_attention",
)
"""Settings of memory and speed that may change while a run trains; its results stay the same up to rounding."""

CHANGEABLE = (*STEERABLE, *EXTENDABLE, *TUNABLE)
"""All settings that may change while a run trains, or when it is resumed."""
