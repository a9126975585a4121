"""What a card's owner is told beforehand: tier, predicted memory, predicted time.

The predictions lie in ``predicted_memory.json``, because counting takes seconds;
``benchmarks/memory_prediction.py`` writes it and a test counts it anew.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any, Literal

from sdi_gs.settings.tiers import Tier, tier_for

GIB = 2**30
MODELS = {"sd21-base": 512, "sd21": 768}
"""Pixels of their images."""


def predicted(tier: Tier, image_size: int, *, field: Literal["preset", "published"] | None = None) -> Any:
    """Peak bytes and seconds by card of a step on a tier, with Perp-Neg: four views of 200 000 Gaussians, or one view
    of a field, the presets' or the paper's.

    None for what was not counted.
    """
    text = resources.files("sdi_gs.runs").joinpath("predicted_memory.json").read_text(encoding="utf-8")
    return json.loads(text).get(":".join(filter(None, (tier.name, str(image_size), field))))


def tier_lines(free_bytes: int, card_name: str) -> list[str]:
    """The tier of a card by its free memory, and what a step needs on it; one fact per line."""
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
    of_field = predicted(tier, MODELS["sd21-base"], field="preset")
    if of_field is not None:
        lines.append(
            f"predicted   sd21-base with --representation ngp: {of_field['peak_bytes'] / GIB:.1f} GiB,"
            f" {_times(of_field['seconds'], card_name)} a step of one view"
        )
    return lines


def _times(seconds: dict[str, float], card_name: str) -> str:
    """The named card's time, or those of all that are known."""
    own = [name for name in seconds if name in card_name]
    return ", ".join(f"{seconds[name]:.2f} s" if own else f"{seconds[name]:.2f} s on {name}" for name in own or seconds)
