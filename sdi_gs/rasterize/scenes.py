"""Small random scenes for comparing rasterisers.

Letters: C cameras, N Gaussians, D colour channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class BallScene:
    """Gaussians in a ball of radius 1 around the origin, and cameras that look at it."""

    means: Tensor  # [N, 3]
    quats: Tensor  # [N, 4]
    scales: Tensor  # [N, 3]
    opacities: Tensor  # [N]
    colors: Tensor  # [N, D]
    viewmats: Tensor  # [C, 4, 4]
    Ks: Tensor  # [C, 3, 3]
    width: int
    height: int

    def cameras(self) -> dict[str, Any]:
        """Return the camera arguments of ``rasterization``."""
        return {"viewmats": self.viewmats, "Ks": self.Ks, "width": self.width, "height": self.height}

    def leaves(self, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """Return fresh trainable copies of the Gaussians' tensors."""
        names = ("means", "quats", "scales", "opacities", "colors")
        return {name: getattr(self, name).detach().to(dtype).clone().requires_grad_() for name in names}


def ball_scene(
    num_gaussians: int = 250,
    *,
    width: int = 40,
    height: int = 40,
    scales: tuple[float, float] = (0.01, 0.05),
    opacities: tuple[float, float] = (0.2, 0.8),
    channels: int = 3,
    seed: int = 0,
) -> BallScene:
    """Draw a ball of Gaussians and two cameras.

    One camera sees the whole ball; the other stands at its edge, with Gaussians beside and behind it.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(shape: tuple[int, ...], low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    directions = torch.nn.functional.normalize(torch.randn(num_gaussians, 3, generator=generator), dim=-1)
    far, near = torch.eye(4), torch.eye(4)
    far[2, 3] = 3.0
    cosine, sine = math.cos(0.7), math.sin(0.7)
    near[:3] = torch.tensor([[cosine, 0, sine, 0.05], [0, 1, 0, 0.2], [-sine, 0, cosine, 0.9]])
    focal = 0.5 * width / math.tan(math.radians(25.0))
    intrinsics = torch.tensor([[focal, 0, 0.5 * width - 1.5], [0, 1.1 * focal, 0.5 * height + 0.7], [0, 0, 1]])
    return BallScene(
        means=directions * uniform((num_gaussians, 1), 0.0, 1.0) ** (1 / 3),
        quats=torch.randn(num_gaussians, 4, generator=generator),
        scales=uniform((num_gaussians, 3), *scales),
        opacities=uniform((num_gaussians,), *opacities),
        colors=uniform((num_gaussians, channels), 0.0, 1.0),
        viewmats=torch.stack([far, near]),
        Ks=intrinsics.expand(2, 3, 3).contiguous(),
        width=width,
        height=height,
    )
