"""What keeps a cloud in shape under distillation: no needles, no floaters.

Letters: N Gaussians.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SOLID_OPACITY = 0.25
"""Below it a Gaussian is haze, which connects nothing and is the business of pruning by opacity."""

_CELLS = 32
_CELLS_PER_DEVIATION = 4.0
"""Cells along one standard deviation of the solid mass; the grid then reaches four of them to either side."""
_WIDTHS_PER_CELL = 2.0
"""A cell is at least this many typical Gaussians wide, so that a sparse cloud does not fall into dust."""
_MAIN_SHARE = 0.5
"""Where no piece holds this much, there is no main mass that others could float beside."""


@torch.no_grad()
def cap_axis_ratio(
    log_scales: Tensor,  # [N, 3]
    cap: float,
) -> None:
    """Shorten, in place, the longest axis to ``cap`` times the middle one: discs are free, needles are not."""
    middle = log_scales.median(dim=-1, keepdim=True).values
    log_scales.copy_(torch.minimum(log_scales, middle + math.log(cap)))


@torch.no_grad()
def floaters(
    means: Tensor,  # [N, 3]
    widths: Tensor,  # [N] longest axes
    opacities: Tensor,  # [N] in (0, 1)
    min_share: float,
) -> Tensor:
    """Which solid Gaussians [N] belong to a piece that holds less than ``min_share`` of their summed opacity.

    Pieces are what stays connected, corners included, on a grid of 32 cells a side that is laid around the solid
    mass; what lies outside of it is a floater whatever its share. There are none beside less than a main mass.
    """
    solid = (opacities > SOLID_OPACITY).nonzero()[:, 0]
    doomed = torch.zeros(len(means), dtype=torch.bool, device=means.device)
    if not len(solid):
        return doomed
    weights = opacities[solid] / opacities[solid].sum()
    centre = weights @ means[solid]
    offsets = means[solid] - centre
    deviation = (weights @ offsets.square().sum(dim=-1) / 3.0).sqrt().clamp_min(1e-6)
    cell = torch.maximum(deviation / _CELLS_PER_DEVIATION, _WIDTHS_PER_CELL * widths[solid].median())
    cells = (offsets / cell + _CELLS / 2).floor().long()
    inside = ((cells >= 0) & (cells < _CELLS)).all(dim=-1)
    x, y, z = cells.clamp(0, _CELLS - 1).unbind(dim=-1)
    flat = (x * _CELLS + y) * _CELLS + z
    occupied = torch.zeros(_CELLS**3, device=means.device)
    occupied[flat[inside]] = 1.0
    pieces = _connected(occupied.view(_CELLS, _CELLS, _CELLS)).flatten()[flat]
    mass = torch.zeros(_CELLS**3 + 1, device=means.device).index_add_(0, pieces, weights * inside)
    if mass.amax() >= _MAIN_SHARE:
        doomed[solid] = ~inside | (mass[pieces] < min_share)
    return doomed


def _connected(
    occupied: Tensor,  # [S, S, S] 0 or 1
) -> Tensor:
    """A number [S, S, S] for every piece of touching cells, 0 where there is nothing."""
    labels = torch.arange(1, occupied.numel() + 1, device=occupied.device).view_as(occupied) * occupied
    while True:
        # Every cell takes the highest number around it, until each piece has its own highest everywhere.
        spread = torch.nn.functional.max_pool3d(labels[None, None], 3, stride=1, padding=1)[0, 0] * occupied
        if torch.equal(spread, labels):
            return labels.long()
        labels = spread
