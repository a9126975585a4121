"""Settings of the files that a run writes besides its splats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from sdi_gs.settings.bounds import INTERVAL, Range, check_settings

_INTERVAL_OR_NEVER = Range(INTERVAL.low, INTERVAL.high, zero_means="never")


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """Files of a run besides its splats."""

    preview_every: Annotated[int, _INTERVAL_OR_NEVER] = 50
    """Steps between preview pictures; 0 for none."""
    checkpoint_every: Annotated[int, _INTERVAL_OR_NEVER] = 100
    """Steps between checkpoints; 0 for one at the end only."""
    turntable_frames: Annotated[int, Range(1, 10_000, zero_means="no video")] = 48
    """Frames of the turntable; 0 for no video."""
    turntable_size: Annotated[int, Range(16, 4096)] = 256
    """Side of the turntable's frames in pixels."""

    def __post_init__(self) -> None:
        check_settings(self)
