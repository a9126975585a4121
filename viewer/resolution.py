"""The size of a render from the time that the last ones took."""

from __future__ import annotations

import math

SMALLEST_SIDE = 64
LARGEST_SIDE = 1024
"""Pixels of the longer side: bounds one render whatever the timings."""
FRAMES_PER_SECOND = 10.0
"""Target while the camera moves."""
LONGEST_REST_RENDER = 0.2
"""Seconds of one render at rest: it cannot be interrupted, and is repeated while training continues."""
_FORGETTING = 0.5


class RenderSpeed:
    """Pixels per second of one kind of render, estimated from timings."""

    def __init__(self, pixels_per_second: float = 500_000.0) -> None:
        self._rate = pixels_per_second

    def learn(self, pixels: int, seconds: float) -> None:
        """Update the estimate with a timing; the latest count most."""
        measured = pixels / max(seconds, 1e-4)
        # A geometric mean, since rates differ by orders of magnitude.
        self._rate = math.exp((1.0 - _FORGETTING) * math.log(self._rate) + _FORGETTING * math.log(max(measured, 1.0)))

    def size(self, *, canvas_height: int, aspect: float, seconds: float) -> tuple[int, int]:
        """Return a width and a height of the canvas' aspect, at most its size, that take about ``seconds``."""
        wanted = self._rate * seconds
        largest = min(canvas_height, LARGEST_SIDE, LARGEST_SIDE / aspect)
        smallest = min(max(SMALLEST_SIDE, SMALLEST_SIDE / aspect), largest)
        height = min(max(math.sqrt(wanted / aspect), smallest), largest)
        return max(round(height * aspect), 1), max(round(height), 1)


def moving_seconds(share: float) -> float:
    """Return the seconds of one render of a moving camera that leave training its ``share`` of the time."""
    return (1.0 - share) / FRAMES_PER_SECOND


def rest_seconds(share: float) -> float:
    """Return the seconds of one render at rest: what training leaves of a second, up to a limit."""
    return min(1.0 - share, LONGEST_REST_RENDER)
