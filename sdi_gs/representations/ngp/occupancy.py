"""Occupancy grid: which cells of the cube are worth sampling, by the densities found there.

Letters: G cells along a side, P points.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from sdi_gs.representations.ngp.rendering import Sampling

_PROBES = 2
"""Points along a side of a cell that ``refresh`` evaluates."""
_LOOKS = 4
"""Random points of a cell that ``update`` evaluates: with one, a run misses 4 % of the samples that absorb light."""


FADE_SHARE = 0.1
"""Share of a run within which a cell that is no longer dense becomes empty, unless ``occupancy_decay`` is given."""


class CellSettings(Sampling, Protocol):
    """Settings of the cells."""

    @property
    def occupancy_resolution(self) -> int:
        """Cells along a side."""
        ...

    @property
    def occupancy_decay(self) -> float | None:
        """Factor on a cell's stored opacity at each update; None for one that follows from the run's length."""
        ...


class OccupancyGrid:
    """The largest opacity of a step found in each cell, decaying from update to update (nerfacc's rule)."""

    def __init__(self, config: CellSettings, *, device: torch.device) -> None:
        self.config = config
        side = config.occupancy_resolution
        # Every cell counts as occupied until it is evaluated.
        self.alphas = torch.ones((side, side, side), device=device)

    def occupied(self) -> Tensor:  # [G, G, G] bool
        """Mark the cells where a step may absorb at least ``empty_alpha``."""
        return self.alphas >= self.config.empty_alpha

    @torch.no_grad()
    def update(self, density_of: Callable[[Tensor], Tensor], generator: torch.Generator, *, run_share: float) -> None:
        """Decay the stored opacities, and evaluate random points of every cell.

        ``run_share`` is the share of the run between two updates.
        """
        best = self.decay(run_share) * self.alphas
        for _ in range(_LOOKS):
            within = torch.rand((best.numel(), 3), generator=generator, device=best.device)
            best = torch.maximum(best, self._alphas_at(density_of, within))
        self.alphas = best

    def decay(self, run_share: float) -> float:
        """Return the factor of an update: as configured, or one that empties the densest cell within FADE_SHARE."""
        given = self.config.occupancy_decay
        return self.config.empty_alpha ** (run_share / FADE_SHARE) if given is None else given

    @torch.no_grad()
    def refresh(self, density_of: Callable[[Tensor], Tensor]) -> None:
        """Discard the stored opacities, and evaluate several fixed points of every cell."""
        best = torch.zeros_like(self.alphas)
        places = (torch.arange(_PROBES, device=best.device) + 0.5) / _PROBES
        for within in torch.cartesian_prod(places, places, places):
            best = torch.maximum(best, self._alphas_at(density_of, within.expand(best.numel(), 3)))
        self.alphas = best

    def _alphas_at(
        self,
        density_of: Callable[[Tensor], Tensor],
        within: Tensor,  # [G^3, 3] shares of a cell
    ) -> Tensor:  # [G, G, G]
        """Return the opacity of a step through one point of every cell."""
        side, radius = self.config.occupancy_resolution, self.config.radius
        numbers = torch.arange(side, device=within.device)
        corners = torch.cartesian_prod(numbers, numbers, numbers)
        points = (corners + within) * (2.0 * radius / side) - radius
        return -torch.expm1(-density_of(points) * self.config.step_length).reshape_as(self.alphas)
