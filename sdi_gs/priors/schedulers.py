"""Read the constants of the noise from the config of any diffusers scheduler, or refuse it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_args

from sdi_gs.contracts import NoiseSchedule, PredictionType, TimestepSpacing
from sdi_gs.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

STABLE_DIFFUSION: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
"""What the published schedulers of Stable Diffusion 1.x and 2.x have in common; single files contain no scheduler."""

_BETAS = ("beta_start", "beta_end", "beta_schedule")


def read_scheduler(
    config: Mapping[str, Any], *, prediction_type: PredictionType | None = None
) -> tuple[NoiseSchedule, PredictionType]:
    """Return the constants of the noise and the U-Net's prediction type; ``prediction_type`` replaces the config's.

    The levels are diffusers' own, computed in float32 and held in float64: exact ones move kappa by 5e-6,
    too much for parity with the published code. Raises UserError for configs that the guidance does not support, and
    for those without betas, which diffusers would read as another schedule.
    """
    _require_betas(config)
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    scheduler: Any = DDIMScheduler.from_config(dict(config))
    predicted: PredictionType = prediction_type or scheduler.config.prediction_type
    if predicted not in get_args(PredictionType):
        known = ", ".join(get_args(PredictionType))
        raise UserError(
            f"prediction_type {predicted!r} is unknown: it must be one of {known}; --prior-type replaces the config's"
        )
    spacing: str = scheduler.config.timestep_spacing
    if spacing != "linspace" and spacing not in get_args(TimestepSpacing):
        known = ", ".join(get_args(TimestepSpacing))
        raise UserError(f"timestep_spacing {spacing!r} has no inversion grid: set it to one of {known}")
    levels = scheduler.alphas_cumprod
    falling = bool((levels.diff() <= 0.0).all()) and bool((levels[:-1] > 0.0).all())
    if levels.dim() != 1 or not bool(levels.isfinite().all()) or levels[0] > 1.0 or levels[-1] < 0.0 or not falling:
        raise UserError("its noise levels do not fall from 1 to 0: restore beta_start, beta_end and trained_betas")
    schedule = NoiseSchedule(
        alphas_cumprod=_without_a_zero(levels.double()),
        initial_alpha_cumprod=float(scheduler.final_alpha_cumprod),
        steps_offset=scheduler.config.steps_offset,
        timestep_spacing="trailing" if spacing == "trailing" else "leading",
    )
    return schedule, predicted


def scheduler_notes(config: Mapping[str, Any]) -> list[str]:
    """Return one line for each setting that is read as another one."""
    notes = []
    if config.get("timestep_spacing") == "linspace":
        notes.append('timestep_spacing "linspace" is taken as "leading": it only sets the timesteps of the inversion')
    if config.get("rescale_betas_zero_snr"):
        last = int(config.get("num_train_timesteps", 1000)) - 1
        notes.append(
            f"rescale_betas_zero_snr: timestep {last}, where nothing of the latent is left, is taken as {last - 1}"
        )
    return notes


def _require_betas(config: Mapping[str, Any]) -> None:
    name = config.get("_class_name", "the scheduler")
    if "FlowMatch" in str(name):
        raise UserError(
            f"{name} belongs to a flow model, whose levels are no DDPM schedule: use a text-to-image model of "
            "Stable Diffusion 1.x or 2.x"
        )
    if config.get("trained_betas") is not None or config.get("beta_schedule") == "squaredcos_cap_v2":
        return
    missing = [key for key in _BETAS if config.get(key) is None]
    if missing:
        published = ", ".join(f"{key} {STABLE_DIFFUSION[key]}" for key in _BETAS)
        raise UserError(
            f"{name} has no {', no '.join(missing)}, so that its noise levels are unknown: add them to "
            f"scheduler/scheduler_config.json (Stable Diffusion 1.x and 2.x: {published})"
        )


def _without_a_zero(
    alphas_cumprod: Tensor,  # [T]
) -> Tensor:
    """Return the levels; a last one of zero, by which predictions would be divided, becomes that before it."""
    if alphas_cumprod[-1] <= 0.0:
        alphas_cumprod = alphas_cumprod.clone()
        alphas_cumprod[-1] = alphas_cumprod[-2]
    return alphas_cumprod
