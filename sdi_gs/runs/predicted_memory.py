"""The shipped predictions for a card: tier, memory, time.

They are stored in ``predicted_memory.json``, because counting takes seconds and is no part of the package;
``benchmarks/memory_prediction.py`` writes the file and a test counts rows of it again.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any, Literal

from sdi_gs.settings.compute import ComputeConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tiers import TIERS, Tier, saving_at_least, tier_for

GIB = 2**30
MODELS = {"sd21-base": 512, "sd21": 768}
"""Pixels of their images."""


Case = Literal["gaussians", "pixels", "preset", "published"]
"""Four views of 200 000 Gaussians, in latents or with 40 targets kept in pixels; or one view of a field, that of a
laptop's defaults or the paper's."""


def predicted(tier: Tier, image_size: int, case: Case = "gaussians") -> Any:
    """Return peak bytes and seconds by card of a step on a tier, with Perp-Neg; None if the case was not counted.

    In pixels the seconds are those of a step that computes targets, "replayed_seconds" those of a step on kept ones.
    """
    return _table().get(":".join((tier.name, str(image_size), *([] if case == "gaussians" else [case]))))


def predicted_of_check(config: RunConfig) -> int | None:
    """Return the peak bytes of tensors in a step of the doctor's check "cost", which starts with the initial Gaussians.

    ``config`` is a Gaussian run of sd21-base, its compute settings a tier's. None if these settings were not counted.
    """
    if config.losses.space != "latents":
        return None
    tier = next((tier for tier in TIERS if saving_at_least(ComputeConfig(), tier.compute) == config.compute), None)
    row = None if tier is None else _table().get(f"{tier.name}:{MODELS['sd21-base']}:check")
    if row is None or (row["views"], row["gaussians"]) != (config.views_per_step, config.gaussians.num_initial):
        return None
    return row["tensor_bytes"]


def tier_lines(free_bytes: int, card_name: str) -> list[str]:
    """Return lines for the terminal: a card's tier by its free memory, and memory and time of a step on that tier."""
    tier = tier_for(free_bytes)
    if tier is None:
        return [f"tier        none fits into {free_bytes / GIB:.1f} GiB of free memory"]
    lines = [f"tier        {tier.name}, for {free_bytes / GIB:.1f} GiB of free memory: {tier.summary}"]
    for model, size in MODELS.items():
        row = predicted(tier, size)
        if row is None:
            continue
        beyond = "" if size <= tier.largest_pixels else ", more than this tier is made for"
        lines.append(
            f"predicted   {model}: {row['peak_bytes'] / GIB:.1f} GiB{beyond},"
            f" {_times(row['seconds'], card_name)} a step"
        )
    in_pixels = predicted(tier, MODELS["sd21-base"], "pixels")
    if in_pixels is not None:
        lines.append(
            f"predicted   sd21-base with --losses.space pixels: {in_pixels['peak_bytes'] / GIB:.1f} GiB,"
            f" {_times(in_pixels['seconds'], card_name)} a step that computes targets,"
            f" {_times(in_pixels['replayed_seconds'], card_name)} one on kept targets"
        )
    # What the presets take for a field, once its renders have grown to 512 pixels.
    of_field = predicted(tier, MODELS["sd21-base"], "published")
    if of_field is not None:
        lines.append(
            f"predicted   sd21-base with --representation ngp: {of_field['peak_bytes'] / GIB:.1f} GiB,"
            f" {_times(of_field['seconds'], card_name)} a step of one view"
        )
    return lines


def _table() -> dict[str, Any]:
    text = resources.files("sdi_gs.runs").joinpath("predicted_memory.json").read_text(encoding="utf-8")
    return json.loads(text)


def _times(seconds: dict[str, float], card_name: str) -> str:
    """Format the named card's time, or the times of all known cards."""
    own = [name for name in seconds if name in card_name]
    return ", ".join(f"{seconds[name]:.2f} s" if own else f"{seconds[name]:.2f} s on {name}" for name in own or seconds)
