"""Memory tiers: how a step is computed on cards of 8 to 40 GB; free of torch for the command line's sake.

``docs/reports/gpu-memory.md`` has what each is predicted to need; tests hold every tier to its budget.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from sdi_gs.settings.compute import ComputeConfig, fewest

TierName = Literal["8", "12", "16", "24", "40"]
TierChoice = Literal["auto", "8", "12", "16", "24", "40", "none"]

HEADROOM = 0.15
"""Share of a card that a tier leaves to the desktop, to other programs and to what was not foreseen."""


@dataclass(frozen=True, kw_only=True)
class Tier:
    """A way of computing for cards of one size and more."""

    name: TierName
    summary: str
    """What it does, for a line of output."""
    compute: ComputeConfig
    largest_pixels: int = 768
    """Side of the largest pictures that are predicted to fit its budget; tests count both sizes of SD 2.1."""

    @property
    def budget_bytes(self) -> int:
        """What it may need of a card, its process' own memory included."""
        return int((1.0 - HEADROOM) * int(self.name) * 2**30)


TIERS: tuple[Tier, ...] = (
    Tier(name="40", summary="two views at once", compute=ComputeConfig(views_at_once=2, rays_at_once=2**17)),
    Tier(
        name="24",
        summary="one view at once, text encoder on the host",
        compute=ComputeConfig(views_at_once=1, rays_at_once=2**16, free_text_encoder=True),
    ),
    Tier(
        name="16",
        summary="one view and two branches at once, text encoder on the host",
        compute=ComputeConfig(views_at_once=1, rays_at_once=2**15, branches_at_once=2, free_text_encoder=True),
    ),
    Tier(
        name="12",
        summary="one view and two branches at once, VAE checkpointed, text encoder on the host",
        compute=ComputeConfig(
            views_at_once=1, rays_at_once=2**14, branches_at_once=2, vae="checkpoint", free_text_encoder=True
        ),
    ),
    Tier(
        name="8",
        summary="one view and one branch at once, VAE checkpointed, text encoder on the host",
        compute=ComputeConfig(
            views_at_once=1, rays_at_once=2**13, branches_at_once=1, vae="checkpoint", free_text_encoder=True
        ),
        largest_pixels=512,
    ),
)
"""Largest first; each saves all that the one before it saves, and more."""


def tier_named(name: TierName) -> Tier:
    """One tier."""
    return next(tier for tier in TIERS if tier.name == name)


def tier_for(free_bytes: int) -> Tier | None:
    """The largest tier that is promised to fit; None where none is."""
    return next((tier for tier in TIERS if tier.budget_bytes <= free_bytes), None)


def saving_at_least(compute: ComputeConfig, tier: ComputeConfig) -> ComputeConfig:
    """The settings with every lever of memory at least where the tier has it; the others as they were."""
    return replace(
        compute,
        views_at_once=fewest(compute.views_at_once, tier.views_at_once),
        rays_at_once=fewest(compute.rays_at_once, tier.rays_at_once),
        branches_at_once=fewest(compute.branches_at_once, tier.branches_at_once),
        vae="checkpoint" if "checkpoint" in (compute.vae, tier.vae) else compute.vae,
        free_text_encoder=compute.free_text_encoder or tier.free_text_encoder,
    )


def next_lower(
    compute: ComputeConfig, *, views: int, branches: int, rays: int = 0
) -> tuple[Tier, ComputeConfig] | None:
    """The largest tier that saves what the settings do not yet, and the settings under it; None where all is saved.

    ``views``, ``branches`` and a field's ``rays`` are those of a step: as many at once as there are is no saving.
    """
    now = _said_shortly(compute, views, branches, rays)
    for tier in TIERS:
        lower = _said_shortly(saving_at_least(compute, tier.compute), views, branches, rays)
        if lower != now:
            return tier, lower
    return None


def _said_shortly(compute: ComputeConfig, views: int, branches: int, rays: int) -> ComputeConfig:
    """The same with 0 for all."""
    return replace(
        compute,
        views_at_once=compute.views_at_once if compute.views_at_once < views else 0,
        rays_at_once=compute.rays_at_once if compute.rays_at_once < rays else 0,
        branches_at_once=compute.branches_at_once if compute.branches_at_once < branches else 0,
    )
