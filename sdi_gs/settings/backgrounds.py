"""Solid backgrounds that a view can be shown over, by the words that prompts use for them."""

from __future__ import annotations

from typing import Literal, get_args

BackgroundName = Literal["white", "gray", "black"]
BACKGROUND_NAMES: tuple[BackgroundName, ...] = get_args(BackgroundName)

BACKGROUND_COLOURS: dict[BackgroundName, tuple[float, float, float]] = {
    "white": (1.0, 1.0, 1.0),
    "gray": (0.5, 0.5, 0.5),
    "black": (0.0, 0.0, 0.0),
}
"""RGB in [0, 1]."""

BackgroundChoice = Literal["white", "gray", "black", "random"]
"""What a training view can be shown over: a named colour, or a colour of its own draw, which no prompt can name."""
