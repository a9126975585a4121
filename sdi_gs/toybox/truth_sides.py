"""Whether the views of a score show the sides that their cameras see.

Letters: V views, H W pixels.
"""

from __future__ import annotations

from torch import Tensor

from sdi_gs.cameras import ViewWord
from sdi_gs.toybox import metrics
from sdi_gs.toybox.objects import CLASSES_WITH_FRONT, SIDES_ALIKE, PlacedObject
from sdi_gs.toybox.truth_renders import TruthRenders


def judge_views(
    rgb: Tensor,  # [V, H, W, 3] over white
    item: PlacedObject,
    renders: TruthRenders,
) -> tuple[float | None, bool | None]:
    """Return the view accuracy, and whether front and back are on the right sides (see ``TruthScore``).

    Every view is compared with the true object seen from ``VIEW_GRID_AZIMUTHS`` sides at the same elevation.
    """
    if item.class_name in SIDES_ALIKE:
        return None, None
    words = renders.cameras.view_words()
    grid, grid_words = renders.from_all_sides(item)
    distances = metrics.squared_error(rgb[:, None], grid)
    nearest_words = [grid_words[v][int(distances[v].argmin())] for v in range(len(words))]
    accuracy = sum(near == word for near, word in zip(nearest_words, words, strict=True)) / len(words)
    if item.class_name not in CLASSES_WITH_FRONT or not {"front view", "back view"} <= set(words):
        return accuracy, None

    def error(shown: ViewWord, true: ViewWord) -> float:
        """Return the sum, over the views with one word, of the distance to the nearest true view with the other."""
        return sum(
            min(d for d, candidate in zip(distances[v].tolist(), grid_words[v], strict=True) if candidate == true)
            for v, word in enumerate(words)
            if word == shown
        )

    front_right = error("front view", "front view") < error("front view", "back view")
    back_right = error("back view", "back view") < error("back view", "front view")
    return accuracy, front_right and back_right
