"""Names of the checks of ``sdi-gs doctor --full``."""

from __future__ import annotations

from typing import Literal, get_args

CheckName = Literal["rasterizer", "field", "growth", "toybox", "precision", "cost", "fallback", "throughput"]
CHECK_NAMES: tuple[CheckName, ...] = get_args(CheckName)

SUMMARIES: dict[CheckName, str] = {
    "rasterizer": "pictures, depth, radii and every gradient of the rasteriser",
    "field": "pictures and gradients of the hash-grid field",
    "growth": "200 steps of each densification strategy",
    "toybox": "one SDI step of each toybox prior",
    "precision": "Stable Diffusion 2.1's SDI step in float16 and bfloat16 against float32",
    "cost": "peak memory of a training step, and where its time goes",
    "fallback": "a training step that runs out of memory and is taken again with less",
    "throughput": "pictures per second of the rasteriser",
}
"""What each check compares or measures, in one line."""
