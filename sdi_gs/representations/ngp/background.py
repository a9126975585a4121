"""A learned background: a small network over directions.

Letters: R rays.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdi_gs.rasterize.spherical_harmonics import harmonic_bases
from sdi_gs.representations.ngp.field import uniform_weights
from sdi_gs.settings.ngp import NgpConfig

_WIDTH = 16


class Environment:
    """Spherical harmonics, two hidden layers of 16 and a sigmoid (published SDI config)."""

    def __init__(self, config: NgpConfig, *, generator: torch.Generator, device: torch.device) -> None:
        self._degree = config.environment_degree
        shapes = {"first": ((self._degree + 1) ** 2, _WIDTH), "second": (_WIDTH, _WIDTH), "out": (_WIDTH, 3)}
        self.params = nn.ParameterDict(
            {
                name: nn.Parameter(
                    uniform_weights(*shape, initialisation=config.initialisation, generator=generator, device=device)
                )
                for name, shape in shapes.items()
            }
        )

    def colours(
        self,
        directions: Tensor,  # [R, 3] world
    ) -> Tensor:  # [R, 3] in (0, 1)
        """Return the colours of rays that hit nothing."""
        bases = harmonic_bases(self._degree, directions)
        hidden = F.relu(F.relu(bases @ self.params["first"]) @ self.params["second"])
        return torch.sigmoid(hidden @ self.params["out"])
