"""Density, albedo and normals at points: two small networks over a hash grid, and a bump of density at the origin.

Letters: P points, L levels, E table entries, K hidden units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdi_gs.representations.ngp.config import NgpConfig
from sdi_gs.representations.ngp.hash_grid import FEATURES, encode, encode_with_jacobian, grid_layout

_TABLE_SPREAD = 1e-4
"""Bound of the table's uniform initial values (Instant NGP)."""


@dataclass(frozen=True, kw_only=True)
class FieldValues:
    """The field at P points."""

    density: Tensor  # [P] per scene unit
    albedo: Tensor  # [P, 3] in (0, 1)
    normals: Tensor | None  # [P, 3] world, unit, towards falling density


def uniform_weights(rows: int, columns: int, *, generator: torch.Generator, device: torch.device) -> Tensor:
    """He's initialisation for a layer of ``rows`` inputs without a bias."""
    bound = math.sqrt(6.0 / rows)
    return (2.0 * torch.rand((rows, columns), generator=generator, device=device) - 1.0) * bound


class NgpField:
    """The trainable field; ``params`` owns its tensors by name."""

    def __init__(self, config: NgpConfig, *, generator: torch.Generator, device: torch.device) -> None:
        self.config = config
        self.layout = grid_layout(config.grid)
        self.num_levels = config.grid.initial_levels
        """Levels in use."""
        width, hidden = FEATURES * self.layout.num_levels, config.hidden_width
        table = torch.rand((self.layout.num_entries, FEATURES), generator=generator, device=device)
        shapes = {
            "density_hidden": (width, hidden),
            "density_out": (hidden, 1),
            "albedo_hidden": (width, hidden),
            "albedo_out": (hidden, 3),
        }
        self.params = nn.ParameterDict({"table": nn.Parameter((2.0 * table - 1.0) * _TABLE_SPREAD)})
        for name, shape in shapes.items():
            self.params[name] = nn.Parameter(uniform_weights(*shape, generator=generator, device=device))

    def levels_at(self, progress: float) -> int:
        """Levels in use after a share of the run: the initial ones, then one more at equal intervals."""
        grid = self.config.grid
        waiting = grid.num_levels - grid.initial_levels
        if progress >= grid.bands_end:
            return grid.num_levels
        # Rounding must not hold back a level that is due.
        joined = waiting * (progress - grid.bands_start) / max(grid.bands_end - grid.bands_start, 1e-9)
        return grid.initial_levels + max(math.floor(joined + 1e-6), 0)

    def density_of(
        self,
        points: Tensor,  # [P, 3] world
    ) -> Tensor:  # [P]
        """Density per scene unit, 0 outside the cube."""
        features = encode(self._to_grid(points), self.params["table"], self.layout, num_levels=self.num_levels)
        hidden = features @ self.params["density_hidden"]
        density = F.softplus((F.relu(hidden) @ self.params["density_out"])[:, 0] + self._bump(points))
        return density * (points.detach().abs().amax(dim=-1) <= self.config.radius)

    def albedo_of(
        self,
        points: Tensor,  # [P, 3] world
    ) -> Tensor:  # [P, 3]
        """Colour in (0, 1)."""
        return self._albedo(
            encode(self._to_grid(points), self.params["table"], self.layout, num_levels=self.num_levels)
        )

    def values_at(
        self,
        points: Tensor,  # [P, 3] world, inside the cube
        *,
        with_normals: bool,
    ) -> FieldValues:
        """All that a render needs, from one look at the grid."""
        table, at = self.params["table"], self._to_grid(points)
        jacobian = None
        if with_normals:
            features, jacobian = encode_with_jacobian(at, table, self.layout, num_levels=self.num_levels)
        else:
            features = encode(at, table, self.layout, num_levels=self.num_levels)
        hidden = features @ self.params["density_hidden"]
        raw = (F.relu(hidden) @ self.params["density_out"])[:, 0]
        normals = None
        if jacobian is not None:
            normals = self._normals(points, hidden, jacobian)
        return FieldValues(
            density=F.softplus(raw + self._bump(points)), albedo=self._albedo(features), normals=normals
        )

    def normals_of(
        self,
        points: Tensor,  # [P, 3] world, inside the cube
    ) -> Tensor:  # [P, 3]
        """Unit vectors against the gradient of density."""
        normals = self.values_at(points, with_normals=True).normals
        assert normals is not None
        return normals

    def _normals(
        self,
        points: Tensor,  # [P, 3]
        hidden: Tensor,  # [P, K] before the ReLU
        jacobian: Tensor,  # [P, 3, 2 L]
    ) -> Tensor:  # [P, 3]
        """The chain rule by hand; softplus is left out, since its slope is positive and a direction has no length."""
        active = (hidden.detach() > 0.0).to(hidden.dtype)
        by_feature = (active * self.params["density_out"][:, 0]) @ self.params["density_hidden"].T
        by_grid = (jacobian @ by_feature[:, :, None])[:, :, 0]
        bump_slope = self.config.blob_scale / self.config.blob_radius
        outward = F.normalize(points, dim=-1)
        return F.normalize(bump_slope * outward - by_grid / (2.0 * self.config.radius), dim=-1)

    def _albedo(
        self,
        features: Tensor,  # [P, 2 L]
    ) -> Tensor:  # [P, 3]
        return torch.sigmoid(F.relu(features @ self.params["albedo_hidden"]) @ self.params["albedo_out"])

    def _to_grid(self, points: Tensor) -> Tensor:  # [P, 3] in [0, 1]
        radius = self.config.radius
        return ((points + radius) / (2.0 * radius)).clamp(0.0, 1.0)

    def _bump(self, points: Tensor) -> Tensor:  # [P]
        """What is added to the density before its softplus (Magic3D)."""
        return self.config.blob_scale * (1.0 - points.norm(dim=-1) / self.config.blob_radius)
