"""Distances to the nearest neighbours, which decide the widths of points.

Letters: N points, K neighbours, R rows of a chunk, W points of a window.
"""

from __future__ import annotations

import torch
from torch import Tensor

_ROWS = 256
"""Points whose neighbours are searched at once."""
_WINDOW = 512
"""Points on either side of them that are searched first."""


def neighbour_distances(
    points: Tensor,  # [N, 3]
    num_neighbours: int,
) -> Tensor:
    """Compute exact distances [N, K] to the nearest other points, ascending.

    Points are sorted along the axis of their largest extent. Neighbours are searched in a window of that order, which
    is doubled until the K-th neighbour is nearer than the window's ends.

    Raises ValueError for K points or fewer.
    """
    count = len(points)
    if count <= num_neighbours:
        raise ValueError(f"{count} points have no {num_neighbours} neighbours each")
    axis = int((points.amax(dim=0) - points.amin(dim=0)).argmax())
    order = points[:, axis].argsort()
    ordered = points[order]
    along = ordered[:, axis].contiguous()
    found = torch.empty(count, num_neighbours, dtype=points.dtype, device=points.device)
    for first in range(0, count, _ROWS):
        rows = torch.arange(first, min(first + _ROWS, count), device=points.device)
        found[order[rows]] = _within_window(ordered, along, rows, num_neighbours)
    return found


def _within_window(
    points: Tensor,  # [N, 3] sorted
    along: Tensor,  # [N] the coordinate that they are sorted by
    rows: Tensor,  # [R] consecutive
    num_neighbours: int,
) -> Tensor:
    """Compute distances [R, K] for some of the points."""
    count, first, last = len(points), int(rows[0]), int(rows[-1])
    width = max(_WINDOW, num_neighbours + 1)
    while True:
        low, high = max(first - width, 0), min(last + width + 1, count)
        # Axis by axis: three passes over [R, W] are quicker than one over [R, W, 3].
        distances = torch.zeros(len(rows), high - low, dtype=points.dtype, device=points.device)
        for axis in range(3):
            distances += (points[rows, None, axis] - points[None, low:high, axis]).square()
        # A point is not its own neighbour; another one in the same place is.
        distances[torch.arange(len(rows), device=rows.device), rows - low] = torch.inf
        nearest = distances.topk(num_neighbours, dim=-1, largest=False).values.sqrt()
        before = along[rows] - along[low] if low > 0 else torch.inf
        after = along[high - 1] - along[rows] if high < count else torch.inf
        reach = torch.minimum(torch.as_tensor(before).to(nearest), torch.as_tensor(after).to(nearest))
        if (nearest[:, -1] <= reach).all():
            return nearest
        width *= 2
