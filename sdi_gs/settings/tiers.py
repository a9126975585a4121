"""Memory tiers: options of computing for cards of 8 to 40 GB; imports no torch, so that the command line starts fast.

``docs/reports/gpu-memory.md`` has what each is predicted to need; tests hold every tier to its budget.
"""

from __future__ import annotations

from collections.abc import Callable
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


_IN_PAIRS = ComputeConfig(vae_views_at_once=2, rays_at_once=2**18)
_TEXT_ON_HOST = ComputeConfig(vae_views_at_once=1, rays_at_once=2**16, free_text_encoder=True)
_CHECKPOINTED = replace(_TEXT_ON_HOST, rays_at_once=2**15, vae="checkpoint")

TIERS: tuple[Tier, ...] = (
    Tier(name="40", summary="all views at once", compute=ComputeConfig(rays_at_once=2**18)),
    Tier(name="24", summary="two views at a time in the VAE", compute=_IN_PAIRS),
    Tier(name="16", summary="one view at a time in the VAE, text encoder on the host", compute=_TEXT_ON_HOST),
    Tier(
        name="12",
        summary="one view at a time in the VAE, which is checkpointed, text encoder on the host",
        compute=_CHECKPOINTED,
    ),
    Tier(
        name="8",
        summary="one view at a time, VAE checkpointed, text encoder on the host",
        compute=replace(_CHECKPOINTED, rays_at_once=2**14, views_at_once=1),
        largest_pixels=512,
    ),
)
"""Largest card first; each saves more than the one before it, by the same options and further ones."""


def tier_named(name: TierName) -> Tier:
    """Return the tier of a name."""
    return next(tier for tier in TIERS if tier.name == name)


def tier_for(free_bytes: int, need: Callable[[Tier], int | None] = lambda _: None) -> Tier | None:
    """Return the fastest tier that is predicted to fit; None if none does.

    ``need`` returns the bytes that a run is predicted to need on a tier, which must leave ``HEADROOM`` of what is
    free. Where it returns None the tier's own budget decides.
    """

    def fits(tier: Tier) -> bool:
        needed = need(tier)
        return tier.budget_bytes <= free_bytes if needed is None else needed <= (1.0 - HEADROOM) * free_bytes

    return next((tier for tier in TIERS if fits(tier)), None)


def under_tier(compute: ComputeConfig, tier: ComputeConfig) -> ComputeConfig:
    """Return a tier's way of computing, with the options of speed that need no more memory."""
    return replace(
        tier,
        vae_precision=compute.vae_precision,
        channels_last=compute.channels_last,
        compile_unet=compute.compile_unet,
        compile_mode=compute.compile_mode,
        cuda_graphs=compute.cuda_graphs,
        unet_engine=compute.unet_engine,
        field_kernels=compute.field_kernels,
        fused_adam=compute.fused_adam,
    )


def saving_at_least(compute: ComputeConfig, tier: ComputeConfig) -> ComputeConfig:
    """Return the settings with every memory option at least as saving as the tier's; other options are unchanged."""
    return replace(
        compute,
        views_at_once=fewest(compute.views_at_once, tier.views_at_once),
        rays_at_once=fewest(compute.rays_at_once, tier.rays_at_once),
        vae_views_at_once=fewest(compute.vae_views_at_once, tier.vae_views_at_once),
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
        # Views that are all taken one by one are so in the VAE too.
        vae_views_at_once=compute.encoded_at_once if compute.encoded_at_once < views else 0,
        branches_at_once=compute.branches_at_once if compute.branches_at_once < branches else 0,
    )
