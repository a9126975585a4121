"""Settings of the priors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from sdi_gs.settings.bounds import SEED, SHARE, Range, check_settings

PriorType = Literal["auto", "epsilon", "v_prediction", "sample"]
"""What a diffusion network predicts, or auto for what its own files state."""

STRONGEST_LORA = 100.0


def lora_and_weight(text: str) -> tuple[str, float]:
    """Return file and weight of ``FILE[:WEIGHT]``; ValueError for a weight that is no use."""
    file, colon, end = text.rpartition(":")
    try:
        weight = float(end)
    except ValueError:
        return text, 1.0
    if not colon or not file or Path(text).exists():
        return text, 1.0
    if not -STRONGEST_LORA <= weight <= STRONGEST_LORA:
        raise ValueError(f"lora weight must be {-STRONGEST_LORA:g} to {STRONGEST_LORA:g}, got {end} in {text}")
    return file, weight


MAX_RENDERS = 1_000_000
"""Most renders of one object."""
MAX_PIXELS = 500_000_000
"""Most pixels of the renders of one object, of which each takes 32 bytes while it is made."""


EVEN_FRONT_SHARE = 0.25
"""Share of the full turn in which a front is seen."""


@dataclass(frozen=True, kw_only=True)
class IdealPriorConfig:
    """The set of renders in the closed-form toybox prior, and the width of the mixture around them."""

    image_size: Annotated[int, Range(4, 1024)] = 64
    """Side of the renders in pixels."""
    pool: Annotated[int, Range(1, 64)] = 2
    """Pixels averaged into one latent pixel along each axis; always 1 for a prompt with a style."""
    renders_per_view: Annotated[int, Range(1, MAX_RENDERS)] = 256
    """Mixture centres for one object under one view word."""
    unconditional_renders: Annotated[int, Range(1, MAX_RENDERS)] = 1500
    """Mixture centres of the unconditional prompt: every class, colour and side."""
    renders_per_window: Annotated[int, Range(8, 10_000)] = 40
    """Mixture centres for one object at one camera, with ``guidance.views="cameras"``."""
    azimuth_window_deg: Annotated[float, Range(5.0, 360.0)] = 15.0
    """Width of the azimuths that a camera may stand for: it is known to within half of it on either side."""
    elevation_window_deg: Annotated[float, Range(5.0, 180.0)] = 20.0
    """Width of the elevations that a camera may stand for."""
    view_words_dropped: Annotated[float, SHARE] = 0.0
    """Share of cases in which a view word is forgotten, as by networks that hear view words badly; any side but the top
    may then be seen, as often as ``front_share`` says (docs/janus.md)."""
    front_share: Annotated[float, SHARE] = EVEN_FRONT_SHARE
    """Share of fronts among the pictures that no view word is heard for, the rest being sides and backs, two to one; a
    quarter is every side as often as it is wide, photographs show more fronts, and two faces come of it."""
    component_std: Annotated[float, Range(0.0, 100.0, low_open=True)] = 0.3
    """Width s of the mixture in latent units, where white is 1 and black is -1."""
    styled_std: Annotated[float, Range(0.0, 100.0, low_open=True)] = 0.1
    """Width s for a prompt with a style, whose renders are exact: it must stay below the contrast of the patches."""
    elevation_deg: Annotated[tuple[float, float], Range(-90.0, 90.0, ordered=True)] = (-10.0, 40.0)
    """Range of camera elevations of all views but the overhead one."""
    distance: Annotated[float, Range(0.1, 1000.0)] = 3.3
    """Camera distance in scene units."""
    fov_y_deg: Annotated[float, Range(1.0, 150.0)] = 40.0
    """Vertical field of view."""
    seed: Annotated[int, SEED] = 0
    """Seed of the set's random objects and cameras, within the split that belongs to the prior."""

    def __post_init__(self) -> None:
        check_settings(self)
        if self.image_size % self.pool:
            raise ValueError(f"image_size must be a multiple of pool, {self.pool}, got {self.image_size}")
        for name in ("renders_per_view", "unconditional_renders"):
            count = getattr(self, name)
            if count * self.image_size**2 > MAX_PIXELS:
                raise ValueError(
                    f"{name} must be at most {MAX_PIXELS // self.image_size**2} with image_size {self.image_size}, "
                    f"{MAX_PIXELS / 1e6:.0f} million pixels, got {count}"
                )
        if self.renders_around > MAX_RENDERS:
            raise ValueError(
                f"renders_per_window must be at most {MAX_RENDERS} renders on all sides, got {self.renders_around}: "
                "lower it, or widen azimuth_window_deg or elevation_window_deg"
            )

    @property
    def elevations_around(self) -> tuple[float, float]:
        """Elevations of the renders on all sides: half a window more than ``elevation_deg``, up to the poles."""
        low, high = self.elevation_deg
        return max(low - 0.5 * self.elevation_window_deg, -90.0), min(high + 0.5 * self.elevation_window_deg, 90.0)

    @property
    def renders_around(self) -> int:
        """Number of renders on all sides, of which a window holds ``renders_per_window``."""
        low, high = self.elevations_around
        windows = 360.0 / self.azimuth_window_deg * max((high - low) / self.elevation_window_deg, 1.0)
        return math.ceil(self.renders_per_window * windows)
