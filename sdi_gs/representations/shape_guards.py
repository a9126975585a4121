"""Guards against needles, slats and floaters, which distillation tends to grow.

Letters: N Gaussians.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SOLID_OPACITY = 0.25
"""Opacity below which a Gaussian connects nothing; pruning by opacity removes such haze."""

_CELLS = 32
_CELLS_PER_DEVIATION = 4.0
"""Cells along one standard deviation of the solid mass; the grid then reaches four of them to either side."""
_WIDTHS_PER_CELL = 2.0
"""A cell is at least this many typical Gaussians wide, so that sparse Gaussians do not fall into many pieces."""
_MAIN_SHARE = 0.5
"""Share of the opacity that one piece must hold for others to count as floaters beside it."""


@torch.no_grad()
def cap_axis_ratio(
    log_scales: Tensor,  # [N, 3]
    cap: float,
) -> None:
    """Shorten, in place, the longest axis to at most ``cap`` times the middle one; discs are left as they are."""
    middle = log_scales.median(dim=-1, keepdim=True).values
    log_scales.copy_(torch.minimum(log_scales, middle + math.log(cap)))


@torch.no_grad()
def widen_axes(
    log_scales: Tensor,  # [N, 3]
    smallest: float,
) -> None:
    """Widen, in place, every axis to at least ``smallest`` scene units."""
    log_scales.clamp_min_(math.log(smallest))


@torch.no_grad()
def floaters(
    means: Tensor,  # [N, 3]
    widths: Tensor,  # [N] longest axes
    opacities: Tensor,  # [N] in (0, 1)
    min_share: float,
) -> Tensor:
    """Mark the solid Gaussians [N] of pieces that hold less than ``min_share`` of the solid Gaussians' summed opacity.

    Pieces are connected, corners included, on a grid of 32 cells a side around the solid Gaussians; those outside of
    the grid are floaters whatever their share. Without a piece of at least half of the opacity there are no floaters.
    """
    solid = (opacities > SOLID_OPACITY).nonzero()[:, 0]
    mask = torch.zeros(len(means), dtype=torch.bool, device=means.device)
    if not len(solid):
        return mask
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
        mask[solid] = ~inside | (mass[pieces] < min_share)
    return mask


def _connected(
    occupied: Tensor,  # [S, S, S] 0 or 1
) -> Tensor:
    """Label [S, S, S] every piece of touching cells by a number, 0 for empty cells."""
    labels = torch.arange(1, occupied.numel() + 1, device=occupied.device).view_as(occupied) * occupied
    while True:
        # Every cell takes the highest number around it, until each piece has its own highest everywhere.
        spread = torch.nn.functional.max_pool3d(labels[None, None], 3, stride=1, padding=1)[0, 0] * occupied
        if torch.equal(spread, labels):
            return labels.long()
        labels = spread
