"""How many pixels a render may have, from how long the last ones took."""

from __future__ import annotations

import math

SMALLEST_SIDE = 64
LARGEST_SIDE = 1024
"""Of the longer side: a bound on one call, whatever the timing says."""
FRAMES_PER_SECOND = 10.0
"""Wanted while the camera moves."""
LONGEST_REST_RENDER = 0.2
"""Seconds of one render at rest: it cannot be interrupted, and is repeated as training goes on."""
_FORGETTING = 0.5


class RenderSpeed:
    """Pixels per second of one kind of render, learned from timings."""

    def __init__(self, pixels_per_second: float = 500_000.0) -> None:
        self._rate = pixels_per_second

    def learn(self, pixels: int, seconds: float) -> None:
        """Take a timing into account; the last ones count most."""
        measured = pixels / max(seconds, 1e-4)
        # Geometric, since rates differ by orders of magnitude.
        self._rate = math.exp((1.0 - _FORGETTING) * math.log(self._rate) + _FORGETTING * math.log(max(measured, 1.0)))

    def size(self, *, canvas_height: int, aspect: float, seconds: float) -> tuple[int, int]:
        """Width and height that take about ``seconds``: of the canvas' aspect, and no larger than it."""
        wanted = self._rate * seconds
        largest = min(canvas_height, LARGEST_SIDE, LARGEST_SIDE / aspect)
        smallest = min(max(SMALLEST_SIDE, SMALLEST_SIDE / aspect), largest)
        height = min(max(math.sqrt(wanted / aspect), smallest), largest)
        return max(round(height * aspect), 1), max(round(height), 1)


def moving_seconds(share: float) -> float:
    """Seconds of one render while the camera moves, so that ``share`` of the time stays training's."""
    return (1.0 - share) / FRAMES_PER_SECOND


def rest_seconds(share: float) -> float:
    """Seconds of one render at rest: about a second's worth of what training leaves."""
    return min(1.0 - share, LONGEST_REST_RENDER)
