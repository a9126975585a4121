"""Backgrounds of a step's views.

Letters: B views.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sdi_gs.settings.backgrounds import BACKGROUND_COLOURS, BackgroundName


def draw_backgrounds(choices: Sequence[BackgroundName], count: int, generator: torch.Generator) -> list[BackgroundName]:
    """Draw one of the backgrounds per view; ``generator`` is on the host."""
    return [choices[int(index)] for index in torch.randint(len(choices), (count,), generator=generator)]


def colours_of(backgrounds: Sequence[BackgroundName], device: torch.device) -> Tensor:  # [B, 3] in [0, 1]
    """Return the colours of backgrounds, without waiting for the device."""
    colours = torch.tensor([BACKGROUND_COLOURS[name] for name in backgrounds])
    return colours.to(device, non_blocking=True)
