"""Distances to the nearest neighbours, which decide the widths of points.

Letters: N points, K neighbours, L leaves of a k-d tree, R points of a leaf, B leaves at once, S points of these.
"""

from __future__ import annotations

import torch
from torch import Tensor

_LEAF = 128
"""Most points of a leaf."""
_LEAVES = 8
"""Leaves that are searched at once, nearest first."""
_SLACK = 1.0 + 1e-5
"""Factor on a squared distance that rounding cannot exceed."""


def neighbour_distances(
    points: Tensor,  # [N, 3]
    num_neighbours: int,
) -> Tensor:
    """Compute exact distances [N, K] to the nearest other points, ascending.

    Points are split at the median of their widest axis down to leaves of few, so that planes, columns and points that
    coincide take no longer than others. For each leaf, the leaves are searched whose boxes are nearer than the K-th
    neighbour found so far.

    Raises ValueError for K points or fewer.
    """
    count = len(points)
    if count <= num_neighbours:
        raise ValueError(f"{count} points have no {num_neighbours} neighbours each")
    leaves = _leaves(points)
    groups = [points[leaf] for leaf in leaves]
    low = torch.stack([group.amin(dim=0) for group in groups])
    high = torch.stack([group.amax(dim=0) for group in groups])
    found = torch.empty(count, num_neighbours, dtype=points.dtype, device=points.device)
    for index, leaf in enumerate(leaves):
        found[leaf] = _nearest(groups, index, low, high, num_neighbours).sqrt()
    return found


def _leaves(
    points: Tensor,  # [N, 3]
) -> list[Tensor]:  # L times [R]
    """Return the points of every leaf."""
    leaves, parts = [], [torch.arange(len(points), device=points.device)]
    while parts:
        part = parts.pop()
        if len(part) <= _LEAF:
            leaves.append(part)
            continue
        inside = points[part]
        axis = int((inside.amax(dim=0) - inside.amin(dim=0)).argmax())
        order = part[inside[:, axis].argsort()]
        parts += [order[: len(part) // 2], order[len(part) // 2 :]]
    return leaves


def _nearest(
    groups: list[Tensor],  # L times [R, 3]
    index: int,
    low: Tensor,  # [L, 3]
    high: Tensor,  # [L, 3]
    num_neighbours: int,
) -> Tensor:
    """Compute squared distances [R, K] of a leaf's points to their nearest neighbours."""
    own = groups[index]
    nearest = torch.full((len(own), num_neighbours), torch.inf, dtype=own.dtype, device=own.device)
    gaps = _gaps(low, high, low[index], high[index])
    # Its own points first.
    gaps[index] = -1.0
    ordered = gaps.argsort()
    for first in range(0, len(groups), _LEAVES):
        chosen = ordered[first : first + _LEAVES]
        limit = nearest[:, -1] * _SLACK
        if gaps[chosen[0]] >= limit.max():
            break
        reached = _gaps(low[chosen], high[chosen], own[:, None], own[:, None]) < limit[:, None]  # [R, B]
        rows = reached.any(dim=1).nonzero()[:, 0]
        others = chosen[reached.any(dim=0)].tolist()
        if len(rows):
            nearest[rows] = _merged(nearest[rows], own, rows, groups, others, index)
    return nearest


def _merged(
    nearest: Tensor,  # [R, K]
    own: Tensor,  # [R, 3] all points of the leaf
    rows: Tensor,  # [R] those that are searched for
    groups: list[Tensor],
    others: list[int],
    index: int,
) -> Tensor:
    """Return the smallest squared distances, [R, K], among those known and those to the points of other leaves."""
    there = torch.cat([groups[other] for other in others])
    # Axis by axis: three passes over [R, S] are quicker than one over [R, S, 3].
    distances = torch.zeros(len(rows), len(there), dtype=own.dtype, device=own.device)
    for axis in range(3):
        distances += (own[rows, None, axis] - there[None, :, axis]).square()
    if index in others:
        # A point is not its own neighbour; another one in the same place is.
        start = sum(len(groups[other]) for other in others[: others.index(index)])
        distances[torch.arange(len(rows), device=rows.device), start + rows] = torch.inf
    return torch.cat([nearest, distances], dim=1).topk(nearest.shape[1], dim=1, largest=False).values


def _gaps(
    low: Tensor,  # [..., 3]
    high: Tensor,  # [..., 3]
    other_low: Tensor,  # [..., 3]
    other_high: Tensor,  # [..., 3]
) -> Tensor:
    """Compute squared distances [...] between boxes."""
    return torch.maximum(low - other_high, other_low - high).clamp_min(0.0).square().sum(dim=-1)
