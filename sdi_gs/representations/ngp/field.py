"""Density, albedo and normals at points: two small networks over a hash grid, and a bump of density at the origin.

Letters: P points, L levels, E table entries, K hidden units.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdi_gs.representations.ngp.backends import Backend
from sdi_gs.representations.ngp.hash_grid import FEATURES, grid_layout
from sdi_gs.representations.ngp.networks import QueryResult, Weights, query
from sdi_gs.representations.ngp.rendering import FieldValues
from sdi_gs.settings.ngp import Initialisation, NgpConfig

_TABLE_SPREAD = 1e-4
"""Bound of the table's uniform initial values (Instant NGP)."""


_SQUARED_BOUNDS: dict[Initialisation, float] = {"he": 6.0, "published": 1.0}
"""Squared bound of uniform weights times the number of inputs; 1 is that of ``torch.nn.Linear``."""


def uniform_weights(
    *shape: int, initialisation: Initialisation, generator: torch.Generator, device: torch.device
) -> Tensor:
    """Return the first weights of a layer without a bias, inputs by rows."""
    bound = math.sqrt(_SQUARED_BOUNDS[initialisation] / shape[0])
    return (2.0 * torch.rand(shape, generator=generator, device=device) - 1.0) * bound


class NgpField:
    """The trainable field; ``params`` owns its tensors by name."""

    def __init__(self, config: NgpConfig, *, generator: torch.Generator, device: torch.device) -> None:
        self.config = config
        self.layout = grid_layout(config.grid)
        self.num_levels = config.grid.initial_levels
        """Levels in use."""
        self.backend: Backend | None = None
        """Code that evaluates the networks; None to choose by device."""
        width, hidden = FEATURES * self.layout.num_levels, config.hidden_width
        table = torch.rand((self.layout.num_entries, FEATURES), generator=generator, device=device)
        shapes = {
            "density_hidden": (width, hidden),
            "density_out": (hidden,),
            "albedo_hidden": (width, hidden),
            "albedo_out": (hidden, 3),
        }
        self.params = nn.ParameterDict({"table": nn.Parameter((2.0 * table - 1.0) * _TABLE_SPREAD)})
        for name, shape in shapes.items():
            weights = uniform_weights(*shape, initialisation=config.initialisation, generator=generator, device=device)
            self.params[name] = nn.Parameter(weights)

    def levels_at(self, progress: float) -> int:
        """Return the number of levels at a share of the run: the initial ones, then one more at equal intervals."""
        grid = self.config.grid
        waiting = grid.num_levels - grid.initial_levels
        if progress >= grid.bands_end:
            return grid.num_levels
        # Rounding must not delay a level that is due.
        joined = waiting * (progress - grid.bands_start) / max(grid.bands_end - grid.bands_start, 1e-9)
        return grid.initial_levels + max(math.floor(joined + 1e-6), 0)

    def density_of(
        self,
        points: Tensor,  # [P, 3] world
    ) -> Tensor:  # [P]
        """Return the density per scene unit; 0 outside the cube."""
        density = F.softplus(self._query(points).raw + self._bump(points))
        return density * (points.detach().abs().amax(dim=-1) <= self.config.radius)

    def albedo_of(
        self,
        points: Tensor,  # [P, 3] world
    ) -> Tensor:  # [P, 3]
        """Return the colour in (0, 1)."""
        logits = self._query(points, with_colour=True).logits
        assert logits is not None
        return torch.sigmoid(logits)

    def values_at(
        self,
        points: Tensor,  # [P, 3] world, inside the cube
        *,
        with_normals: bool,
    ) -> FieldValues:
        """Return everything that a render needs, with one evaluation of the grid."""
        seen = self._query(points, with_colour=True, with_slopes=with_normals)
        assert seen.logits is not None
        return FieldValues(
            density=F.softplus(seen.raw + self._bump(points)),
            albedo=torch.sigmoid(seen.logits),
            normals=self._normals(points, seen.slopes) if seen.slopes is not None else None,
        )

    def normals_of(
        self,
        points: Tensor,  # [P, 3] world, inside the cube
    ) -> Tensor:  # [P, 3]
        """Return unit vectors against the gradient of the density."""
        slopes = self._query(points, with_slopes=True).slopes
        assert slopes is not None
        return self._normals(points, slopes)

    def _query(self, points: Tensor, *, with_colour: bool = False, with_slopes: bool = False) -> QueryResult:
        return query(
            self._to_grid(points),
            Weights(**self.params),
            self.layout,
            num_levels=self.num_levels,
            with_colour=with_colour,
            with_slopes=with_slopes,
            backend=self.backend,
        )

    def _normals(
        self,
        points: Tensor,  # [P, 3]
        slopes: Tensor,  # [P, 3]
    ) -> Tensor:  # [P, 3]
        """Normalise minus the gradient of the softplus' argument; the softplus' own slope is positive and drops out."""
        bump_slope = self.config.blob_scale / self.config.blob_radius
        outward = F.normalize(points, dim=-1)
        return F.normalize(bump_slope * outward - slopes / (2.0 * self.config.radius), dim=-1)

    def _to_grid(self, points: Tensor) -> Tensor:  # [P, 3] in [0, 1]
        radius = self.config.radius
        return ((points + radius) / (2.0 * radius)).clamp(0.0, 1.0)

    def _bump(self, points: Tensor) -> Tensor:  # [P]
        """Return the term that is added to the density before its softplus (Magic3D)."""
        return self.config.blob_scale * (1.0 - points.norm(dim=-1) / self.config.blob_radius)
