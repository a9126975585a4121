"""Memory tiers: options of computing for cards of 8 to 40 GB; imports no torch, so that the command line starts fast.

``docs/reports/gpu-memory.md`` has what each is predicted to need; tests hold every tier to its budget.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from sdi_gs.settings.compute import ComputeConfig, fewest

TierName = Literal["8", "12", "16", "24", "40"]
TierChoice = Literal["auto", "8", "12", "16", "24", "40", "none"]

HEADROOM = 0.15
"""Share of a card that a tier leaves free for the desktop, other programs and prediction errors."""


@dataclass(frozen=True, kw_only=True)
class Tier:
    """Options of computing for cards of at least one size."""

    name: TierName
    summary: str
    """Its effect in one line, for output."""
    compute: ComputeConfig
    largest_pixels: int = 768
    """Side of the largest pictures that are predicted to fit its budget; tests count both sizes of SD 2.1."""

    @property
    def budget_bytes(self) -> int:
        """Bytes that it may use on a card, including the process' own memory."""
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
"""Largest card first; each saves more than the one before it, by the same options and further ones."""


def tier_named(name: TierName) -> Tier:
    """Return the tier of a name."""
    return next(tier for tier in TIERS if tier.name == name)


def tier_for(free_bytes: int) -> Tier | None:
    """Return the largest tier that is predicted to fit; None if none does."""
    return next((tier for tier in TIERS if tier.budget_bytes <= free_bytes), None)


def saving_at_least(compute: ComputeConfig, tier: ComputeConfig) -> ComputeConfig:
    """Return the settings with every memory option at least as saving as the tier's; other options are unchanged."""
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
    """Return the largest tier that saves more than the settings, and the settings under it; None if no tier does.

    ``views``, ``branches`` and a field's ``rays`` are a step's numbers: a group size that covers them saves nothing.
    """
    now = _said_shortly(compute, views, branches, rays)
    for tier in TIERS:
        lower = _said_shortly(saving_at_least(compute, tier.compute), views, branches, rays)
        if lower != now:
            return tier, lower
    return None


def _said_shortly(compute: ComputeConfig, views: int, branches: int, rays: int) -> ComputeConfig:
    """Return the settings with group sizes that cover everything written as 0."""
    return replace(
        compute,
        views_at_once=compute.views_at_once if compute.views_at_once < views else 0,
        rays_at_once=compute.rays_at_once if compute.rays_at_once < rays else 0,
        branches_at_once=compute.branches_at_once if compute.branches_at_once < branches else 0,
    )
