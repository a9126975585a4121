"""How much of an object hangs together: cells of a grid that touch.

Letters: N points, G cells along an edge.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sdi_gs.evaluation.extent import Matter

CELLS = 32
"""Cells along the longest side of the box around the points, at most."""
WIDTHS = 2.0
"""Least width of a cell in median radii of the points: sparse clouds of large splats hang together."""


def floating_share(matter: Matter) -> float:
    """Return the share of the points' weight that does not hang together with the heaviest piece."""
    low, high = matter.points.amin(dim=0), matter.points.amax(dim=0)
    longest = float((high - low).max())
    cell = max(longest / CELLS, WIDTHS * float(matter.sizes.median()), 1e-9)
    places = ((matter.points - low) / cell).long().clamp_max(CELLS)
    grid = torch.zeros((CELLS + 1,) * 3, dtype=torch.float64)
    grid.index_put_(tuple(places.T), matter.weights, accumulate=True)
    pieces = connected(grid > 0.0)
    sums = torch.zeros(int(pieces.max()) + 1, dtype=torch.float64)
    sums.index_put_((pieces.flatten(),), grid.flatten(), accumulate=True)
    return max(1.0 - float(sums[1:].max() / sums[1:].sum()), 0.0)


def connected(
    filled: Tensor,  # [G, G, G] bool
) -> Tensor:  # [G, G, G] int64
    """Return the number of each filled cell's piece, the same for cells that touch, also at corners; 0 for empty ones.

    The numbers are not consecutive.
    """
    numbers = torch.arange(1, filled.numel() + 1, dtype=torch.float64).reshape(filled.shape) * filled
    while True:
        spread = F.max_pool3d(numbers[None, None], kernel_size=3, stride=1, padding=1)[0, 0] * filled
        if torch.equal(spread, numbers):
            return numbers.long()
        numbers = spread
