"""One SDI step without randomness, for comparing devices and precisions.

Letters: B images, C latent channels, h w latent pixels, L tokens, E embedding width, V views, H W pixels.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.contracts import DiffusionPrior, GuidanceOutput
from sdi_gs.guidance.prompts import Conditions
from sdi_gs.guidance.score_distillation import distill
from sdi_gs.guidance.step_plan import StepPlan
from sdi_gs.settings.guidance import GuidanceConfig
from sdi_gs.toybox.objects import canonical_object
from sdi_gs.toybox.renderer import render_scenes
from sdi_gs.toybox.views import toybox_cameras

PROMPT = "a blue robot"


def robot_views(count: int, size: int) -> tuple[CameraBatch, Tensor]:
    """Return cameras around toybox's blue robot and their views over white [V, H, W, 3], on the CPU."""
    cameras = toybox_cameras(torch.arange(count) * (360.0 / count) + 10.0, torch.full((count,), 15.0), size=size)
    return cameras, render_scenes([(canonical_object("robot", "blue"),)] * count, cameras).rgb


def distill_without_chance(
    config: GuidanceConfig,
    prior: DiffusionPrior,
    latents: Tensor,  # [B, C, h, w]
    conditions: Conditions,
    *,
    timestep: int,
) -> GuidanceOutput:
    """Take a run's step at a timestep, with an inversion without added noise and without overshoot."""
    return distill(
        replace(config, inversion_eta=0.0, perp_neg=False, noise="inversion"),
        prior,
        latents,
        conditions,
        plan=StepPlan(timestep=timestep),
        generator=torch.Generator(latents.device).manual_seed(0),
    )


def cosine(ours: Tensor, theirs: Tensor) -> float:
    """Return the cosine of two tensors as vectors, in float64; NaN if one is not finite."""
    left, right = (value.detach().cpu().double().flatten() for value in (ours, theirs))
    return float(left @ right / (left.norm() * right.norm()).clamp_min(1e-300))
