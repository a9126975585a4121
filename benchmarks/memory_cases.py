"""Steps of Stable Diffusion 2.1 to count, and to measure on a card: by tier, size, views and field.

``memory_prediction.py`` counts them, ``steps_on_card.py`` takes some of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

from sdi_gs.configs.presets import preset_named
from sdi_gs.settings.compute import ComputeConfig
from sdi_gs.settings.losses import LossSpace
from sdi_gs.settings.ngp import PUBLISHED, NgpConfig
from sdi_gs.settings.replay import ReplayConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tiers import TIERS, Tier, saving_at_least

SIZES, VIEWS, CLOUDS = (256, 512, 768), (1, 2, 4), (50_000, 200_000, 1_000_000)
USUAL_CLOUD = 200_000
FOUR_VIEWS = 256
"""Pixels of MVDream's pictures, whose prior all cases of the table "four_views" have."""
PUBLISHED_RUNS = (
    ("3DGS, 4 views, no Perp-Neg", 5_000, 43.0, 4, False, 0.1),
    ("NeRF, 1 view, Perp-Neg", 10_000, 119.0, 1, True, 0.25),
)
"""Name, steps, minutes on an A6000 (SDI paper, tables 1 and 2), views, Perp-Neg, t_min."""

FIELDS = (
    ("preset", NgpConfig(), (0, 2**16, 2**14)),
    ("published", PUBLISHED, (0, 2**16, 2**14)),
)
"""Name, field, rays at once (0: all)."""

LEVERS: dict[str, dict[str, Any]] = {
    "attention_plain": {"attention": "plain"},
    "channels_last": {"channels_last": True},
    "cache_cross_attention": {"cache_cross_attention": True},
    "fused_adam": {"fused_adam": True},
    "views_at_once_1": {"views_at_once": 1},
    "vae_views_at_once_1": {"vae_views_at_once": 1},
    "vae_precision_float16": {"vae_precision": "float16"},
    "branches_at_once_1": {"branches_at_once": 1},
    "vae_checkpoint": {"vae": "checkpoint"},
    "free_text_encoder": {"free_text_encoder": True},
    "inversion_order_2": {"inversion_order": 2, "inversion_steps": 5},
    "inversion_steps_5": {"inversion_steps": 5},
    "compile_unet": {"compile_unet": True},
}
"""Changes of the guidance or compute settings. The second-order inversion takes half of the steps and is
as accurate (``docs/reports/probe.md``)."""
UNCOUNTED = ("channels_last", "fused_adam", "compile_unet")
"""Levers with the same counted operations and tensors."""
MEASURED_WAYS = {
    "40": ComputeConfig(views_at_once=2, rays_at_once=2**17),
    "24": ComputeConfig(views_at_once=1, rays_at_once=2**16, free_text_encoder=True),
    "16": ComputeConfig(views_at_once=1, rays_at_once=2**15, branches_at_once=2, free_text_encoder=True),
    "12": ComputeConfig(
        views_at_once=1, rays_at_once=2**14, branches_at_once=2, vae="checkpoint", free_text_encoder=True
    ),
    "8": ComputeConfig(
        views_at_once=1, rays_at_once=2**13, branches_at_once=1, vae="checkpoint", free_text_encoder=True
    ),
}
"""The tiers of the first releases, which are those that ran on a card (docs/reports/gpu-measured.json)."""
SPACES: tuple[LossSpace, ...] = ("latents", "pixels")
REPLAY = ReplayConfig(steps_per_target=4, views=40)
BASE: dict[str, Any] = {}
"""Tier 40, the baseline of each lever: all at once."""


def usual(**changes: Any) -> RunConfig:
    """Return the SD preset with a cloud of constant size."""
    config = preset_named("sd21-base").config
    gaussians = replace(config.gaussians, num_initial=USUAL_CLOUD)
    densify = replace(config.densify, enabled=False)
    return replace(config, gaussians=gaussians, densify=densify, prompt="anything", **changes)


def check_config(tier: Tier) -> RunConfig:
    """Return the run that ``sdi-gs doctor --full --only cost`` times on a tier: the SD preset at its beginning."""
    config = preset_named("sd21-base").config
    return replace(config, prompt="anything", compute=saving_at_least(config.compute, tier.compute))


def clouds(config: RunConfig, count: int) -> RunConfig:
    """Return the run with another number of Gaussians."""
    return replace(config, gaussians=replace(config.gaussians, num_initial=count))


def with_changes(config: RunConfig, changes: dict[str, Any]) -> RunConfig:
    """Return the run with changes of its guidance and compute settings."""
    own = {name: value for name, value in changes.items() if hasattr(config.compute, name)}
    rest = {name: value for name, value in changes.items() if name not in own}
    return replace(config, compute=replace(config.compute, **own), guidance=replace(config.guidance, **rest))


def cases() -> Iterator[tuple[str, int, RunConfig, dict[str, Any]]]:
    """Yield table, pixels, config and labels of every row; networks of 2.1-base and 2.1 have the same shape, so that a
    size stands for both.
    """
    yield from _tier_cases()
    yield from _four_view_cases()
    yield from _replay_cases()
    for name, steps, minutes, views, perp_neg, t_min in PUBLISHED_RUNS:
        config = usual(views_per_step=views, steps=steps)
        config = replace(config, guidance=replace(config.guidance, perp_neg=perp_neg, t_min=t_min))
        yield "published", 512, config, {"run": name, "steps": steps, "minutes": minutes}
    for size, views, perp_neg in product(SIZES, VIEWS, (False, True)):
        config = usual(views_per_step=views)
        config = replace(config, guidance=replace(config.guidance, perp_neg=perp_neg))
        yield "steps", size, config, {"views": views, "perp_neg": perp_neg}
    for count, views in product(CLOUDS, (1, 4)):
        config = clouds(usual(views_per_step=views), count)
        yield "clouds", 512, config, {"views": views, "gaussians": count}
    yield from _field_cases()
    for name, changes in {"none": {}, **LEVERS}.items():
        if name not in UNCOUNTED:
            yield "levers", 512, with_changes(usual(), BASE | changes), {"lever": name}


def _tier_cases() -> Iterator[tuple[str, int, RunConfig, dict[str, Any]]]:
    """Yield the tiers' usual steps, the ways of computing that ran on a card, and the doctor's step on each tier."""
    for tier, size in product(TIERS, (512, 768)):
        yield "tiers", size, usual(compute=tier.compute), {"tier": tier.name}
    for (name, compute), size in product(MEASURED_WAYS.items(), (512, 768)):
        yield "measured_tiers", size, usual(compute=compute), {"tier": name}
    for tier in TIERS:
        config = check_config(tier)
        labels = {"tier": tier.name, "views": config.views_per_step, "gaussians": config.gaussians.num_initial}
        yield "check", 512, config, labels


def _four_view_cases() -> Iterator[tuple[str, int, RunConfig, dict[str, Any]]]:
    """Yield steps under MVDream's network by tier: of Gaussians of constant size, and of its published field."""
    own, published = (preset_named(name).config for name in ("mvdream-sdi", "mvdream"))
    own = replace(clouds(own, USUAL_CLOUD), densify=replace(own.densify, enabled=False))
    for scene, config in (("gaussians", own), ("field", published)):
        for tier in TIERS:
            compute = replace(config, prompt="anything", compute=tier.compute)
            yield "four_views", FOUR_VIEWS, compute, {"tier": tier.name, "scene": scene}


def _replay_cases() -> Iterator[tuple[str, int, RunConfig, dict[str, Any]]]:
    """Yield the cases of target replay, by size, tier and space of the loss."""
    losses = usual().losses
    for size, tier, space in product((512, 768), TIERS, SPACES):
        config = usual(compute=tier.compute, replay=REPLAY, losses=replace(losses, space=space))
        yield "replay", size, config, {"tier": tier.name, "space": space}


def _field_cases() -> Iterator[tuple[str, int, RunConfig, dict[str, Any]]]:
    """Yield the cases of fields, one view per step as in the published run: by rays at once, and by tier.

    The published field is seen by the published cameras, from as near as inside its cube.
    """
    for name, ngp, groups in FIELDS:
        cameras = preset_named("sdi-paper-ngp" if name == "published" else "sd21-base").config.cameras
        field: dict[str, Any] = {"representation": "ngp", "ngp": ngp, "views_per_step": 1, "cameras": cameras}
        for rays in groups:
            config = usual(compute=ComputeConfig(rays_at_once=rays), **field)
            yield "fields", 512, config, {"field": name, "rays_at_once": rays}
        for tier in TIERS:
            yield "field_tiers", 512, usual(compute=tier.compute, **field), {"field": name, "tier": tier.name}
