"""How much of truth's detail images show, at its place: the scores ``detail`` and ``detail_inside`` (docs/eval.md).

Detail is the five-point Laplacian. A picture explains as much of truth's as its own Laplacian agrees with it in sign
and size: what lies elsewhere, noise and streaks are no detail, whatever their energy.

Letters: V views, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sdi_gs.toybox.metrics import dilate, laplacian

REACH = 1
"""Pixels by which a detail may lie beside truth's, in each direction."""
WINDOW_RADIUS = 2
"""Radius in pixels of the window that decides on that shift."""
MIN_ENERGY = 2.5e-3
"""Mean square of the Laplacian below which truth has no detail to speak of: plain faces, lit from one side."""


@dataclass(frozen=True, kw_only=True)
class Detail:
    """Agreement of two Laplacians over some pixels."""

    recall: float
    """Truth's detail that the picture shows: the regression coefficient of its Laplacian on truth's, in [0, 1]."""
    precision: float
    """Detail of the picture that is truth's: the coefficient of the opposite regression, in [0, 1]."""

    @property
    def explained(self) -> float:
        """Return recall times precision: 1 is truth, 0 is blur, noise, or something else."""
        return self.recall * self.precision


def detail(
    predicted: Tensor,  # [V, H, W, 3] over white
    truth: Tensor,  # [V, H, W, 3] over white
    truth_silhouette: Tensor,  # [V, H, W] bool
) -> Detail:
    """Compare the details within the true silhouette grown by 2 pixels: its outline counts."""
    return _agreement(aligned_laplacian(predicted, truth), laplacian(truth), dilate(truth_silhouette, 2))


def detail_inside(
    predicted: Tensor,  # [V, H, W, 3] over white
    truth: Tensor,  # [V, H, W, 3] over white
    truth_silhouette: Tensor,  # [V, H, W] bool
) -> Detail | None:
    """Compare the details within the true silhouette shrunk by 2 pixels; None where truth has almost none."""
    region, true = ~dilate(~truth_silhouette, 2), laplacian(truth)
    inner = region[:, 1:-1, 1:-1]
    if not inner.any() or true[inner].square().mean() < MIN_ENERGY:
        return None
    return _agreement(aligned_laplacian(predicted, truth), true, region)


def aligned_laplacian(
    predicted: Tensor,  # [V, H, W, 3]
    truth: Tensor,  # [V, H, W, 3]
) -> Tensor:  # [V, H - 2, W - 2, 3]
    """Return the prediction's Laplacian, at every pixel moved by the shift that fits truth best around it.

    Shifts are whole pixels, at most ``REACH`` in each direction. They are chosen by colours, not by Laplacians, so
    that noise is not moved to where it fits.
    """
    height, width = predicted.shape[1:3]
    padded = F.pad(predicted.movedim(-1, 1), (REACH,) * 4, mode="replicate").movedim(1, -1)
    # No shift first: it wins where several fit equally well.
    shifts = sorted(
        ((dy, dx) for dy in range(2 * REACH + 1) for dx in range(2 * REACH + 1)),
        key=lambda shift: (shift[0] - REACH) ** 2 + (shift[1] - REACH) ** 2,
    )
    least = torch.full((len(predicted), height - 2, width - 2), torch.inf)
    chosen = torch.zeros(len(predicted), height - 2, width - 2, 3)
    for dy, dx in shifts:
        moved = padded[:, dy : dy + height, dx : dx + width]
        error = (moved - truth).square().mean(dim=-1)[:, None]
        around = F.avg_pool2d(error, 2 * WINDOW_RADIUS + 1, 1, WINDOW_RADIUS, count_include_pad=False)[:, 0, 1:-1, 1:-1]
        better = around < least
        least = torch.where(better, around, least)
        chosen = torch.where(better[..., None], laplacian(moved), chosen)
    return chosen


def _agreement(
    predicted: Tensor,  # [V, H - 2, W - 2, 3] a Laplacian
    truth: Tensor,  # [V, H - 2, W - 2, 3] truth's
    region: Tensor,  # [V, H, W] bool
) -> Detail:
    inner = region[:, 1:-1, 1:-1]
    ours, theirs = predicted[inner].double(), truth[inner].double()
    common = (ours * theirs).sum().item()
    recall = common / max(theirs.square().sum().item(), 1e-12)
    precision = common / max(ours.square().sum().item(), 1e-12)
    return Detail(recall=min(max(recall, 0.0), 1.0), precision=min(max(precision, 0.0), 1.0))
