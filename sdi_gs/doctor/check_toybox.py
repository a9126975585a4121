"""Check "toybox": an SDI step under each toybox prior has the same target on two devices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from sdi_gs.contracts import DiffusionPrior, GuidanceOutput
from sdi_gs.doctor.check_setup import CheckSetup, full_float32
from sdi_gs.doctor.distilled import PROMPT, cosine, distill_without_chance, robot_views
from sdi_gs.doctor.rows import Row, at_least, at_most, skipped
from sdi_gs.guidance.prompts import PromptConditions
from sdi_gs.priors.catalog import TOYBOX, TOYBOX_IDEAL, load_prior
from sdi_gs.priors.latent_diffusion import LatentDiffusionPrior
from sdi_gs.priors.layout import missing_part
from sdi_gs.settings.backgrounds import BackgroundName
from sdi_gs.settings.compute import ComputeConfig

COSINE_LIMIT = 0.9999
"""Smallest cosine; both sides compute in float32 without TF32, and ten inversion steps multiply rounding errors."""
ABSOLUTE_LIMIT = 0.02
"""Limit in latent units; latents are in [-1, 1] under toybox-ideal and have unit variance under toybox."""
TIMESTEP = 500
"""Half of the diffusion's length: the shape is decided here, and the inversion has most of its steps."""
_VIEWS = 4

Load = Callable[[str, torch.device], DiffusionPrior]


def check_toybox(setup: CheckSetup, *, load: Load | None = None) -> Iterator[Row]:
    """Yield four rows per prior; ``load`` loads the prior of the side under test."""

    def usual(name: str, device: torch.device) -> DiffusionPrior:
        compute = ComputeConfig(precision="float32")
        return load_prior(replace(setup.toybox, prior=name, compute=compute), device=device)

    for entry in (TOYBOX_IDEAL, TOYBOX):
        if entry.packaged is not None and missing_part(entry.packaged):
            yield skipped(entry.name, "its weights did not come with this installation")
            continue
        with full_float32():
            ours = _step(setup, (load or usual)(entry.name, setup.device), setup.device)
            theirs = _step(setup, usual(entry.name, setup.reference), setup.reference)
        for what in ("target", "noise"):
            left, right = getattr(ours, what), getattr(theirs, what)
            yield at_least(f"{entry.name}: cosine of the {what}", cosine(left, right), COSINE_LIMIT)
            apart = float((left.cpu() - right.cpu()).abs().max())
            yield at_most(f"{entry.name}: {what} off", apart, ABSOLUTE_LIMIT, unit="latent units")


def _step(setup: CheckSetup, prior: DiffusionPrior, device: torch.device) -> GuidanceOutput:
    """Take one step on views of the object itself."""
    cameras, pictures = robot_views(_VIEWS, prior.image_size)
    if isinstance(prior, LatentDiffusionPrior):
        # A sample of the encoder's posterior would differ between devices.
        prior.config = replace(prior.config, encoding="mode")
    latents = prior.encode_images(pictures.to(device), torch.Generator(device)).detach()
    backgrounds: list[BackgroundName] = ["white"] * _VIEWS
    conditions = PromptConditions(prior, PROMPT).for_cameras(cameras, backgrounds, perp_neg=False)
    return distill_without_chance(setup.toybox.guidance, prior, latents, conditions, timestep=TIMESTEP)
