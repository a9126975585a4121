"""Backgrounds of a step's views.

Letters: B views.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sdi_gs.settings.backgrounds import BACKGROUND_COLOURS, BackgroundChoice


def draw_backgrounds(
    choices: Sequence[BackgroundChoice],
    count: int,
    generator: torch.Generator,
    weights: Sequence[float] | None = None,
) -> list[BackgroundChoice]:
    """Draw one of the backgrounds per view, by their weights if there are any; ``generator`` is on the host."""
    if weights is None:
        drawn = torch.randint(len(choices), (count,), generator=generator)
    else:
        drawn = torch.multinomial(torch.tensor(weights), count, replacement=True, generator=generator)
    return [choices[index] for index in drawn.tolist()]


def colours_of(
    backgrounds: Sequence[BackgroundChoice], generator: torch.Generator, device: torch.device
) -> Tensor:  # [B, 3] in [0, 1]
    """Return the colours of backgrounds, random ones drawn on the host, without waiting for the device."""
    colours = [
        torch.rand(3, generator=generator) if name == "random" else torch.tensor(BACKGROUND_COLOURS[name])
        for name in backgrounds
    ]
    return torch.stack(colours).to(device, non_blocking=True)
