"""Choose the size of renders from the timings of the last ones."""

from __future__ import annotations

import math

SMALLEST_SIDE = 64
LARGEST_SIDE = 1024
"""Largest number of pixels on the longer side, independent of timings."""
FRAMES_PER_SECOND = 10.0
"""Renders per second to aim at while the camera moves."""
LONGEST_REST_RENDER = 0.2
"""Seconds of one render at rest: it cannot be interrupted, and is repeated as training goes on."""
_FORGETTING = 0.5


class RenderSpeed:
    """Pixels per second of one kind of render, learned from timings."""

    def __init__(self, pixels_per_second: float = 500_000.0) -> None:
        self._rate = pixels_per_second

    def learn(self, pixels: int, seconds: float) -> None:
        """Update the estimate by a timing; recent timings count most."""
        measured = pixels / max(seconds, 1e-4)
        # A geometric mean, since rates differ by orders of magnitude.
        self._rate = math.exp((1.0 - _FORGETTING) * math.log(self._rate) + _FORGETTING * math.log(max(measured, 1.0)))

    def size(self, *, canvas_height: int, aspect: float, seconds: float) -> tuple[int, int]:
        """Return a width and height that take about ``seconds``, in the canvas' aspect and at most of its size."""
        wanted = self._rate * seconds
        largest = min(canvas_height, LARGEST_SIDE, LARGEST_SIDE / aspect)
        smallest = min(max(SMALLEST_SIDE, SMALLEST_SIDE / aspect), largest)
        height = min(max(math.sqrt(wanted / aspect), smallest), largest)
        return max(round(height * aspect), 1), max(round(height), 1)


def moving_seconds(share: float) -> float:
    """Return the seconds of a render while the camera moves that leave training ``share`` of the time."""
    return (1.0 - share) / FRAMES_PER_SECOND


def rest_seconds(share: float) -> float:
    """Return the seconds of a render at rest: about what training leaves of one second."""
    return min(1.0 - share, LONGEST_REST_RENDER)
