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
MODELS = {"sd21-base": 512, "sd21": 768, "mvdream": 256}
"""Pixels of their images."""


Case = Literal["gaussians", "pixels", "preset", "published", "mvdream"]
"""Four views of 200 000 Gaussians, in latents or with 40 targets kept in pixels; or one view of a field, that of a
laptop's defaults or the paper's; or four views of MVDream's. All but MVDream's are with Perp-Neg."""


_SHOWN: tuple[tuple[str, int, Case], ...] = (
    ("sd21-base", MODELS["sd21-base"], "gaussians"),
    ("sd21", MODELS["sd21"], "gaussians"),
    ("sd21-base with --losses.space pixels", MODELS["sd21-base"], "pixels"),
    # What the presets take for a field, once its renders have grown to 512 pixels.
    ("sd21-base with --representation ngp, one view", MODELS["sd21-base"], "published"),
    ("mvdream, four views together", MODELS["mvdream"], "gaussians"),
)
"""Kinds of runs whose predictions ``tier_lines`` shows."""


def predicted(tier: Tier, image_size: int, case: Case = "gaussians") -> Any:
    """Return peak bytes and seconds by card of a step on a tier; None if the case was not counted.

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
    """Return lines for the terminal: for each kind of run its tier on a card, and a step's memory and time on it."""
    free = f"{free_bytes / GIB:.1f} GiB of free memory"
    lines = [f"tiers       what --tier auto takes, of {free}:"]
    for what, size, case in _SHOWN:
        tier = tier_for(free_bytes, lambda tier, size=size, case=case: predicted(tier, size, case)["peak_bytes"])
        if tier is None:
            lines.append(f"predicted   {what}: no tier fits into {free}")
            continue
        row = predicted(tier, size, case)
        replayed = f", {_times(row['replayed_seconds'], card_name)} on kept targets" if case == "pixels" else ""
        lines.append(
            f"predicted   {what}: tier {tier.name} ({tier.summary}), {row['peak_bytes'] / GIB:.1f} GiB, "
            f"{_times(row['seconds'], card_name)} a step{replayed}"
        )
    return lines


def _table() -> dict[str, Any]:
    text = resources.files("sdi_gs.runs").joinpath("predicted_memory.json").read_text(encoding="utf-8")
    return json.loads(text)


def _times(seconds: dict[str, float], card_name: str) -> str:
    """Format the named card's time, or the times of all known cards."""
    own = [name for name in seconds if name in card_name]
    return ", ".join(f"{seconds[name]:.2f} s" if own else f"{seconds[name]:.2f} s on {name}" for name in own or seconds)
